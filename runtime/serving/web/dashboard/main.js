// Dashboard: connects the wall of streams, the events and the alerts with the server's messages.

import { element, icon, setText } from "../shared/dom.js";
import { Feed, webSocketUrl } from "../shared/feed.js";
import { FACE_LABELS, STREAM_LABELS, announcement } from "../shared/labels.js";
import { Alerts } from "./alerts.js";
import { EventLog } from "./event-log.js";
import { Evidence } from "./evidence.js";
import { FrameRequests } from "./frame-requests.js";
import { Wall } from "./wall.js";

const CONNECTION_LABELS = {
  open: "Connected",
  closed: "Disconnected, reconnecting",
  connecting: "Connecting",
  refused: "No connection",
};
const TOTALS = ["fake", "uncertain", "real", "warming", "none"];
const RENDER_MS = 100;

const byId = (id) => document.getElementById(id);
const feed = new Feed(webSocketUrl(location.href));
const wall = new Wall(byId("streams"));
const events = new EventLog(byId("event-list"), byId("no-events"));
const alerts = new Alerts({ sound: byId("sound"), notify: byId("notify"), problem: byId("alert-problem") });
const frames = new FrameRequests(feed);
const evidence = new Evidence(byId("evidence"));
let health = new Map();
let uptime = null;
let wasConnected = false;

/** Returns the faces, and the streams without any, for the announcement and the totals. */
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

function render() {
  const streams = feed.current();
  renderConnection();
  wall.render(streams, { thresholds: feed.hello?.thresholds, health });
  renderTools(streams);
  const all = streams.flatMap(entries);
  renderTotals(all);
  setText(byId("announcement"), announcement(all));
  const fakes = all.filter(({ state }) => state === "fake").length;
  document.title = !feed.connected ? "✕ unmask" : fakes ? `⚠ ${fakes} fake · unmask` : "unmask";
  const large = streams.length > 1 ? wall.large : null;
  frames.update({ count: streams.length, large, pixels: innerWidth * devicePixelRatio, hidden: document.hidden });
}

function renderConnection() {
  const { hello, connected, problem } = feed;
  wasConnected ||= connected;
  const state = connected ? "open" : problem ? "refused" : wasConnected ? "closed" : "connecting";
  byId("connection").dataset.connection = state;
  setText(byId("connection"), CONNECTION_LABELS[state]);
  setText(byId("model"), hello?.model ?? "–");
  setText(byId("engine"), hello?.engine ?? "–");
  setText(byId("uptime"), connected && uptime !== null ? duration(uptime) : "–");
  setText(byId("messages"), hello ? String(feed.seq) : "–");
  setText(byId("lost"), hello ? String(feed.lost) : "–");
  setText(byId("delay"), connected ? `${feed.delay.toFixed(1)} s` : "–");
}

function renderTools(streams) {
  const shown = wall.shown.length;
  byId("tools").hidden = streams.length < 2;
  byId("back").hidden = wall.large === null;
  setText(byId("shown"), wall.large === null && shown < streams.length ? `${shown} of ${streams.length} streams` : "");
  const { connected, problem } = feed;
  byId("login").hidden = !feed.needsToken;
  byId("empty").hidden = shown > 0;
  setText(
    byId("empty"),
    !connected ? problem ?? (wasConnected ? "No connection to unmask: there is no valid verdict." : "Waiting for unmask.")
      : streams.length ? "No stream passes the filter." : "There is no stream yet.",
  );
}

function renderTotals(all) {
  const list = byId("totals");
  if (!list.children.length) {
    for (const state of TOTALS) {
      const item = element("li");
      item.dataset.state = state;
      item.append(icon(state), element("strong"), element("span", "", FACE_LABELS[state].toLowerCase()));
      list.append(item);
    }
  }
  for (const item of list.children) {
    const count = all.filter(({ state }) => state === item.dataset.state).length;
    item.hidden = count === 0;
    setText(item.querySelector("strong"), String(count));
  }
}

// Many messages may arrive between two repaints. A hidden page is not painted, but its title is still updated.
let scheduled = false;
let renderedAt = 0;
function scheduleRender() {
  if (scheduled) return;
  scheduled = true;
  const update = () => {
    scheduled = false;
    renderedAt = performance.now();
    render();
  };
  if (document.hidden) setTimeout(update, 1000);
  else setTimeout(() => requestAnimationFrame(update), Math.max(0, renderedAt + RENDER_MS - performance.now()));
}

/** Shows what the server offers: its health report lists the routes that this user may use. */
async function showOffers() {
  try {
    const { routes = [], token = null } = await (await fetch("healthz", { cache: "no-store" })).json();
    byId("logout").hidden = token === null;
    byId("logout").title = `Token: ${token}`;
    for (const link of document.querySelectorAll("[data-route]")) link.hidden = !routes.includes(link.dataset.route);
    evidence.start(routes);
  } catch {
    // The server is gone again; the next connection asks again.
  }
}

feed.addEventListener("message", ({ detail: message }) => {
  if (message.type === "snapshot") showOffers();
  if (message.type === "heartbeat") {
    uptime = message.uptime_s;
    health = new Map(message.streams.map((entry) => [entry.stream, entry]));
    for (const entry of message.streams) wall.card(entry.stream).health.recordCounters(entry, performance.now() / 1000);
  }
  for (const stream of message.type === "snapshot" ? message.streams : [message]) {
    if (stream.type === "stream") events.stream(stream);
  }
});
feed.addEventListener("verdict", ({ detail: { verdict, sentAt } }) => {
  wall.card(verdict.stream).record(verdict, sentAt / 1000);
  events.verdict(verdict);
});
feed.addEventListener("preview", ({ detail: preview }) => wall.card(preview.header.stream).image.show(preview));
feed.addEventListener("change", scheduleRender);
wall.addEventListener("change", render);
events.addEventListener("fake", ({ detail: verdict }) => alerts.raise(verdict));
events.addEventListener("evidence", ({ detail: event }) => evidence.show(event));
evidence.addEventListener("event", ({ detail: event }) => events.evidence(event));
for (const source of [events, alerts]) {
  source.addEventListener("open", ({ detail: stream }) => {
    if (wall.size > 1) wall.open(stream);
  });
}
document.addEventListener("visibilitychange", render);

byId("logout").addEventListener("click", async () => {
  await fetch("logout", { method: "POST" });
  location.assign("login");
});
byId("find").addEventListener("input", ({ target }) => wall.setFilter({ text: target.value }));
byId("show").addEventListener("change", ({ target }) => wall.setFilter({ show: target.value }));
byId("sort").addEventListener("change", ({ target }) => wall.setFilter({ sort: target.value }));
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("back").addEventListener("click", () => wall.open(null));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea, video")) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && wall.large !== null) wall.open(null);
  else if (event.key === "ArrowRight") wall.step(1);
  else if (event.key === "ArrowLeft") wall.step(-1);
  else if (event.key === "/") byId("find").focus();
  else if (/^[1-9]$/.test(event.key) && wall.shown[event.key - 1] && wall.size > 1) wall.open(wall.shown[event.key - 1]);
  else return;
  event.preventDefault();
});

// On a narrow page the list would push the streams out of view.
byId("events").open = innerWidth >= 900;
feed.start();
