// The dashboard: one card per stream, one row per face. Text from outside is written as text, never as HTML.

import { FACE_WORDS, Feed, STREAM_WORDS, element, icon, percent, socketOf, write } from "./overlay.js";

const HISTORY_S = 60;
// A longer pause between two scores is a gap in the line.
const GAP_S = 1.5;
const SCORED = new Set(["real", "uncertain", "fake"]);

const page = (id) => document.getElementById(id);
const feed = new Feed(socketOf(location.href));
const cards = new Map();
let health = new Map();
let uptime = null;
let wasConnected = false;

class FaceRow {
  state = null;
  #scores = [];

  constructor(stream, face) {
    this.label = `face ${face}`;
    this.stream = stream;
    this.node = page("face-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.badge = find(".badge");
    this.score = find(".score");
    this.title = find(".history title");
    this.path = find(".history path");
    this.box = find(".where .box");
    this.fill = find(".fill");
    this.progress = find("progress");
    this.stages = find(".stages");
    write(find(".name"), this.label);
  }

  hear(verdict) {
    this.#scores.push([verdict.time, verdict.p_fake]);
    while (this.#scores[0][0] < verdict.time - HISTORY_S) this.#scores.shift();
  }

  show(verdict) {
    if (verdict.state !== this.state) {
      this.state = verdict.state;
      this.node.dataset.state = verdict.state;
      this.badge.replaceChildren(icon(verdict.state), element("span", "", FACE_WORDS[verdict.state]));
      announce(`${this.stream}, ${this.label}: ${FACE_WORDS[verdict.state]}`);
    }
    write(this.score, SCORED.has(verdict.state) ? `${percent(verdict.p_fake)} fake` : "");
    write(this.fill, percent(verdict.window_fill));
    this.progress.value = verdict.window_fill;
    const [x, y, w, h] = verdict.box;
    this.#place(this.box, { x: 160 * x, y: 90 * y, width: 160 * w, height: 90 * h });
    const cost = verdict.latency_ms;
    const stages = ["decode", "detect", "crop", "backbone", "head"].map((stage) => `${stage} ${cost[stage].toFixed(1)}`);
    write(this.stages, `${stages.slice(0, 2).join(" · ")}\n${stages.slice(2).join(" · ")} ms`);
    this.#draw(verdict.time);
  }

  #draw(now) {
    const { real, fake } = feed.hello?.thresholds ?? { real: 0.5, fake: 0.5 };
    this.#place(this.node.querySelector(".zone-fake"), { y: 0, height: 100 * (1 - fake) });
    this.#place(this.node.querySelector(".zone-real"), { y: 100 * (1 - real), height: 100 * real });
    let line = "";
    let last = -Infinity;
    for (const [time, score] of this.#scores) {
      if (score === null) continue;
      const x = (600 * (time - now + HISTORY_S)) / HISTORY_S;
      // A point alone is drawn as a dot by the round caps of a line of no length.
      line += time - last > GAP_S ? `M${x.toFixed(1)} ${y(score)}h0` : `L${x.toFixed(1)} ${y(score)}`;
      last = time;
    }
    this.path.setAttribute("d", line);
    write(this.title, `Likelihood of a fake over the last ${HISTORY_S} seconds`);
  }

  #place(rect, attributes) {
    for (const [name, value] of Object.entries(attributes)) rect.setAttribute(name, value.toFixed(2));
  }
}

class StreamCard {
  #faces = new Map();

  constructor(stream) {
    this.stream = stream;
    this.node = page("stream-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.list = find(".faces");
    this.state = find(".state");
    this.idle = find(".idle");
    this.latency = find(".latency");
    this.counts = find(".counts");
    write(find("h2"), stream);
    this.idle.append(element("strong", "", FACE_WORDS.none), element("span"));
  }

  hear(verdict) {
    if (verdict.state === "stale") return;
    this.#row(verdict.face).hear(verdict);
  }

  #row(face) {
    if (!this.#faces.has(face)) this.#faces.set(face, new FaceRow(this.stream, face));
    return this.#faces.get(face);
  }

  show({ state, reason, faces }) {
    if (this.node.dataset.state !== state) {
      this.node.dataset.state = state;
      announce(`${this.stream}: ${STREAM_WORDS[state] ?? state}`);
    }
    const shown = state === "live" ? faces : [];
    write(this.state, STREAM_WORDS[state] ?? state);
    write(this.idle.lastChild, reason ?? (state === "live" ? "waiting for a face" : STREAM_WORDS[state] ?? state));
    this.idle.hidden = shown.length > 0;
    const kept = new Set(shown.map((verdict) => verdict.face));
    for (const [face, row] of this.#faces) {
      if (!kept.has(face)) {
        row.node.remove();
        this.#faces.delete(face);
      }
    }
    shown.forEach((verdict, index) => {
      const row = this.#row(verdict.face);
      row.show(verdict);
      if (this.list.children[index] !== row.node) this.list.insertBefore(row.node, this.list.children[index] ?? null);
    });
    const total = shown.map((verdict) => verdict.latency_ms.total);
    write(this.latency, total.length ? `${Math.round(Math.max(...total))} ms latency` : "");
    const count = health.get(this.stream);
    write(
      this.counts,
      count ? `${count.analysed} frames analysed · ${count.dropped} dropped · source lost ${count.reconnects} ×` : "",
    );
  }
}

function y(score) {
  // Kept off the edges, where half of the line would be cut away.
  return (2 + 96 * (1 - score)).toFixed(1);
}

function announce(text) {
  page("spoken").textContent = text;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

function card(stream) {
  if (!cards.has(stream)) {
    const made = new StreamCard(stream);
    cards.set(stream, made);
    page("streams").append(made.node);
  }
  return cards.get(stream);
}

function render() {
  const { hello, connected } = feed;
  wasConnected ||= connected;
  const connection = page("connection");
  connection.dataset.connection = connected ? "open" : wasConnected ? "closed" : "connecting";
  write(connection, connected ? "Connected" : wasConnected ? "Disconnected, trying again" : "Connecting");
  write(page("model"), hello?.model ?? "–");
  write(page("engine"), hello?.engine ?? "–");
  write(page("uptime"), connected && uptime !== null ? duration(uptime) : "–");
  write(page("messages"), hello ? String(feed.seq) : "–");
  write(page("lost"), hello ? String(feed.lost) : "–");

  const present = feed.present();
  const names = new Set(present.map(({ stream }) => stream));
  for (const [name, { node }] of cards) {
    if (!names.has(name)) {
      node.remove();
      cards.delete(name);
    }
  }
  for (const stream of present) card(stream.stream).show(stream);
  page("empty").hidden = present.length > 0;
  write(
    page("empty"),
    connected ? "There is no stream yet." : wasConnected ? "unmask does not answer. No verdict holds." : "Waiting for unmask.",
  );
  const fakes = present.flatMap(({ faces }) => faces.filter(({ state }) => state === "fake")).length;
  document.title = !connected ? "✕ unmask" : fakes ? `⚠ ${fakes} fake · unmask` : "unmask";
}

// Many messages may come between two pictures; a hidden page paints none, but its title is still kept up.
let due = false;
function renderSoon() {
  if (due) return;
  due = true;
  const paint = () => {
    due = false;
    render();
  };
  if (document.hidden) setTimeout(paint, 1000);
  else requestAnimationFrame(paint);
}

feed.addEventListener("message", ({ detail: message }) => {
  if (message.type === "verdict") card(message.stream).hear(message);
  else if (message.type === "snapshot") message.verdicts.forEach((verdict) => card(verdict.stream).hear(verdict));
  else if (message.type === "heartbeat") {
    uptime = message.uptime_s;
    health = new Map(message.streams.map((entry) => [entry.stream, entry]));
  }
});
feed.addEventListener("change", renderSoon);

const overlay = page("overlay");
overlay.href = new URL("overlay", location.href);
write(overlay, overlay.href);
feed.start();
