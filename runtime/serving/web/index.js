// Dashboard: one card per stream, one row per face. All text is set as text, never as HTML.

import { element, icon, setText } from "./shared/dom.js";
import { Feed, webSocketUrl } from "./shared/feed.js";
import { FACE_HELP, FACE_LABELS, REASON_LABELS, SCORED, STREAM_LABELS, announcement, percent } from "./shared/labels.js";

const HISTORY_S = 60;
// A longer pause between two scores interrupts the line.
const GAP_S = 1.5;

const CONNECTION_LABELS = {
  open: "Connected",
  closed: "Disconnected, reconnecting",
  connecting: "Connecting",
  refused: "No connection",
};

const byId = (id) => document.getElementById(id);
const feed = new Feed(webSocketUrl(location.href));
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
    this.node = byId("face-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.badge = find(".badge");
    this.score = find(".score");
    this.title = find(".history title");
    this.path = find(".history path");
    this.box = find(".position .box");
    this.windowFill = find(".window-fill");
    this.progress = find("progress");
    this.stages = find(".stages");
    setText(find(".name"), this.label);
  }

  /** Adds a verdict to the history; `time` is in seconds of this page's monotonic clock. */
  record(verdict, time) {
    this.#scores.push([time, verdict.p_fake]);
    while (this.#scores[0][0] < time - HISTORY_S) this.#scores.shift();
  }

  render(verdict) {
    if (verdict.state !== this.state) {
      this.state = verdict.state;
      this.node.dataset.state = verdict.state;
      this.badge.replaceChildren(icon(verdict.state), element("span", "", FACE_LABELS[verdict.state]));
      this.badge.title = FACE_HELP[verdict.state] ?? "";
    }
    const score = SCORED.has(verdict.state) ? `${percent(verdict.p_fake)} fake` : "";
    // A score that does not lead to a verdict would be read as one.
    setText(this.score, verdict.reason ? REASON_LABELS[verdict.reason] ?? verdict.reason : score);
    setText(this.windowFill, percent(verdict.window_fill));
    this.progress.value = verdict.window_fill;
    const [x, y, w, h] = verdict.box;
    this.#place(this.box, { x: 160 * x, y: 90 * y, width: 160 * w, height: 90 * h });
    const latency = verdict.latency_ms;
    const stages = ["decode", "detect", "crop", "backbone", "head"].map((stage) => `${stage} ${latency[stage].toFixed(1)}`);
    setText(this.stages, `${stages.slice(0, 3).join(" · ")}\n${stages.slice(3).join(" · ")} ms`);
    this.#draw(this.#scores.at(-1)?.[0] ?? 0);
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
      // A single point is drawn as a dot: a line of length 0 with round caps.
      line += time - last > GAP_S ? `M${x.toFixed(1)} ${y(score)}h0` : `L${x.toFixed(1)} ${y(score)}`;
      last = time;
    }
    this.path.setAttribute("d", line);
    setText(this.title, `Probability of a fake in the last ${HISTORY_S} seconds`);
  }

  #place(rect, attributes) {
    for (const [name, value] of Object.entries(attributes)) rect.setAttribute(name, value.toFixed(2));
  }
}

class StreamCard {
  #faces = new Map();

  constructor(stream) {
    this.stream = stream;
    this.node = byId("stream-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.list = find(".faces");
    this.state = find(".state");
    this.idle = find(".idle");
    this.latency = find(".latency");
    this.counts = find(".counts");
    this.footer = find("footer");
    setText(find("h2"), stream);
    this.idle.append(element("strong", "", FACE_LABELS.none), element("span"));
  }

  record(verdict, time) {
    if (verdict.state === "stale") return;
    this.#row(verdict.face).record(verdict, time);
  }

  #row(face) {
    if (!this.#faces.has(face)) this.#faces.set(face, new FaceRow(this.stream, face));
    return this.#faces.get(face);
  }

  render({ state, reason, faces }) {
    this.node.dataset.state = state;
    const shown = state === "live" ? faces : [];
    setText(this.state, STREAM_LABELS[state] ?? state);
    setText(this.idle.lastChild, reason ?? (state === "live" ? "waiting for a face" : STREAM_LABELS[state] ?? state));
    this.idle.hidden = shown.length > 0;
    const currentFaces = new Set(shown.map((verdict) => verdict.face));
    for (const [face, row] of this.#faces) {
      if (!currentFaces.has(face)) {
        row.node.remove();
        this.#faces.delete(face);
      }
    }
    shown.forEach((verdict, index) => {
      const row = this.#row(verdict.face);
      row.render(verdict);
      if (this.list.children[index] !== row.node) this.list.insertBefore(row.node, this.list.children[index] ?? null);
    });
    const totals = shown.map((verdict) => verdict.latency_ms.total);
    setText(this.latency, totals.length ? `latency ${Math.round(Math.max(...totals))} ms` : "");
    const counters = health.get(this.stream);
    setText(
      this.counts,
      counters ? `frames analysed: ${counters.analysed} · dropped: ${dropped(counters)} · reconnects: ${counters.reconnects}${waiting(counters)}` : "",
    );
    // With faces in view the place for the reason is taken; only a wrong clock has one then.
    if (reason && shown.length) setText(this.counts, `${reason} · ${this.counts.textContent}`);
    this.footer.hidden = !this.latency.textContent && !this.counts.textContent;
  }
}

function waiting(counters) {
  return counters.waiting ? ` · too many faces: ${counters.waiting} wait for their turn` : "";
}

function dropped(counters) {
  const causes = Object.entries(counters.dropped_by ?? {}).filter(([, count]) => count > 0);
  return counters.dropped + (causes.length ? ` (${causes.map(([cause, count]) => `${cause} ${count}`).join(", ")})` : "");
}

function y(score) {
  // Not up to the edges, where half of the line would be clipped.
  return (2 + 96 * (1 - score)).toFixed(1);
}

/** Returns the faces, and the streams without any, for the announcement. */
function entries({ stream, state, faces }) {
  if (state !== "live" || !faces.length) {
    return [{ state: "none", name: `${stream} (${state === "live" ? "waiting for a face" : STREAM_LABELS[state] ?? state})` }];
  }
  return faces.map((verdict) => ({ state: verdict.state, name: `${stream}, face ${verdict.face}` }));
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

function card(stream) {
  if (!cards.has(stream)) {
    const added = new StreamCard(stream);
    cards.set(stream, added);
    byId("streams").append(added.node);
  }
  return cards.get(stream);
}

function render() {
  const { hello, connected, problem } = feed;
  wasConnected ||= connected;
  const connection = byId("connection");
  const state = connected ? "open" : problem ? "refused" : wasConnected ? "closed" : "connecting";
  connection.dataset.connection = state;
  setText(connection, CONNECTION_LABELS[state]);
  setText(byId("model"), hello?.model ?? "–");
  setText(byId("engine"), hello?.engine ?? "–");
  setText(byId("uptime"), connected && uptime !== null ? duration(uptime) : "–");
  setText(byId("messages"), hello ? String(feed.seq) : "–");
  setText(byId("lost"), hello ? String(feed.lost) : "–");
  setText(byId("delay"), connected ? `${feed.delay.toFixed(1)} s` : "–");

  const streams = feed.current();
  const names = new Set(streams.map(({ stream }) => stream));
  for (const [name, { node }] of cards) {
    if (!names.has(name)) {
      node.remove();
      cards.delete(name);
    }
  }
  for (const stream of streams) card(stream.stream).render(stream);
  byId("empty").hidden = streams.length > 0;
  setText(
    byId("empty"),
    connected ? "There is no stream yet." : problem ?? (wasConnected ? "No connection to unmask: there is no valid verdict." : "Waiting for unmask."),
  );
  setText(byId("announcement"), announcement(streams.flatMap(entries)));
  const fakes = streams.flatMap(({ faces }) => faces.filter(({ state }) => state === "fake")).length;
  document.title = !connected ? "✕ unmask" : fakes ? `⚠ ${fakes} fake · unmask` : "unmask";
}

// Many messages may arrive between two repaints. A hidden page is not painted, but its title is still updated.
let scheduled = false;
function scheduleRender() {
  if (scheduled) return;
  scheduled = true;
  const update = () => {
    scheduled = false;
    render();
  };
  if (document.hidden) setTimeout(update, 1000);
  else requestAnimationFrame(update);
}

feed.addEventListener("message", ({ detail: message }) => {
  if (message.type === "heartbeat") {
    uptime = message.uptime_s;
    health = new Map(message.streams.map((entry) => [entry.stream, entry]));
  }
});
feed.addEventListener("verdict", ({ detail: { verdict, sentAt } }) => card(verdict.stream).record(verdict, sentAt / 1000));
feed.addEventListener("change", scheduleRender);

const overlay = byId("overlay");
overlay.href = new URL("overlay", location.href);
setText(overlay, overlay.href);
feed.start();
