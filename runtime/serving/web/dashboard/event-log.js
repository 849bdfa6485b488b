// What happened: fakes with their duration, interruptions of streams, and events of which the server has evidence.

import { element, icon, setText } from "../shared/dom.js";
import { STREAM_LABELS, percent } from "../shared/labels.js";

const MAX_EVENTS = 200;
// A face that is fake again within this time continues its event.
const MERGE_MS = 3000;
// Evidence belongs to a fake that began at most this long before or after.
const EVIDENCE_S = 2;
const INTERRUPTIONS = new Set(["too_slow", "stalled", "overloaded", "offline"]);

export class EventLog extends EventTarget {
  #list;
  #none;
  #fakes = new Map();
  // Fakes by stream and face, with the time of the server at which they began, to match the evidence.
  #begun = [];
  #states = new Map();

  constructor(list, none) {
    super();
    this.#list = list;
    this.#none = none;
  }

  /** Handles a verdict; dispatches `fake` with it when a face becomes fake. */
  verdict(verdict) {
    const key = JSON.stringify([verdict.stream, verdict.face]);
    const known = this.#fakes.get(key);
    const now = Date.now();
    if (verdict.state !== "fake") {
      if (known && now - known.lastAt > MERGE_MS) this.#fakes.delete(key);
      return;
    }
    if (known && now - known.lastAt <= MERGE_MS) {
      known.lastAt = now;
      known.max = Math.max(known.max, verdict.p_fake);
      this.#describe(known);
      return;
    }
    const event = { startedAt: now, lastAt: now, max: verdict.p_fake, ...this.#add("fake", verdict.stream, `face ${verdict.face}`) };
    this.#fakes.set(key, event);
    this.#begun.push({ stream: verdict.stream, face: verdict.face, time: verdict.time, item: event.item });
    if (this.#begun.length > MAX_EVENTS) this.#begun.shift();
    this.#describe(event);
    this.dispatchEvent(new CustomEvent("fake", { detail: verdict }));
  }

  /** Handles the state of a stream. */
  stream({ stream, state, reason }) {
    const previous = this.#states.get(stream);
    this.#states.set(stream, state);
    if (previous === state) return;
    if (INTERRUPTIONS.has(state)) {
      setText(this.#add("none", stream, STREAM_LABELS[state]).detail, reason ?? "");
    } else if (INTERRUPTIONS.has(previous) && (state === "live" || state === "no_face")) {
      this.#add("real", stream, "live again");
    } else if (state === "ended") {
      this.#add("none", stream, STREAM_LABELS.ended);
    }
  }

  /** Adds a button that dispatches `evidence` to the fake that the server's event is about, or a new entry. */
  evidence(event) {
    const begun = this.#begun.find(({ stream, face, time }) =>
      stream === event.stream && face === event.face && Math.abs(time - event.time) < EVIDENCE_S);
    const button = element("button", "show", "Evidence");
    button.type = "button";
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("evidence", { detail: event })));
    let item = begun?.item;
    if (!item) {
      const added = this.#add(event.state, event.stream, `face ${event.face}`, 1000 * event.time);
      const score = event.p_fake === null ? "" : `, ${percent(event.p_fake)}`;
      setText(added.detail, event.kind === "control" ? `Random sample${score}` : `Fake${score}`);
      item = added.item;
    }
    item.append(button);
  }

  #describe({ detail, startedAt, lastAt, max }) {
    const seconds = Math.round((lastAt - startedAt) / 1000);
    setText(detail, `Fake, up to ${percent(max)}${seconds ? ` · ${seconds} s` : ""}`);
  }

  #add(state, stream, text, at = Date.now()) {
    const item = element("li");
    item.dataset.state = state;
    item.dataset.at = at;
    const button = element("button", "", `${stream}: ${text}`);
    button.type = "button";
    button.title = "Enlarge this stream";
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("open", { detail: stream })));
    const date = new Date(at);
    const today = date.toDateString() === new Date().toDateString();
    const time = element("time", "", today ? date.toLocaleTimeString() : date.toLocaleString());
    time.dateTime = date.toISOString();
    const detail = element("p", "detail");
    item.append(icon(state), button, time, detail);
    // The newest first; events of which the server keeps evidence may be older than this page.
    const older = [...this.#list.children].find((other) => Number(other.dataset.at) <= at);
    this.#list.insertBefore(item, older ?? null);
    while (this.#list.children.length > MAX_EVENTS) this.#list.lastElementChild.remove();
    this.#none.hidden = true;
    return { item, detail };
  }
}
