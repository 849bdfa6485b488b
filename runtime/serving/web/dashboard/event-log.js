// What happened since the page was opened: fakes with their duration, and interruptions of streams.

import { element, icon, setText } from "../shared/dom.js";
import { STREAM_LABELS, percent } from "../shared/labels.js";

const MAX_EVENTS = 200;
// A face that is fake again within this time continues its event.
const MERGE_MS = 3000;
const INTERRUPTIONS = new Set(["too_slow", "stalled", "overloaded", "offline"]);

export class EventLog extends EventTarget {
  #list;
  #none;
  #fakes = new Map();
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

  #describe({ detail, startedAt, lastAt, max }) {
    const seconds = Math.round((lastAt - startedAt) / 1000);
    setText(detail, `Fake, up to ${percent(max)}${seconds ? ` · ${seconds} s` : ""}`);
  }

  #add(state, stream, text) {
    const item = element("li");
    item.dataset.state = state;
    const button = element("button", "", `${stream}: ${text}`);
    button.type = "button";
    button.title = "Enlarge this stream";
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("open", { detail: stream })));
    const time = element("time", "", new Date().toLocaleTimeString());
    time.dateTime = new Date().toISOString();
    const detail = element("p", "detail");
    item.append(icon(state), button, time, detail);
    this.#list.prepend(item);
    while (this.#list.children.length > MAX_EVENTS) this.#list.lastElementChild.remove();
    this.#none.hidden = true;
    return { item, detail };
  }
}
