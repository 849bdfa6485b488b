// Custom element with the live verdicts of unmask, for any page:
//
//   <script type="module" src="http://127.0.0.1:8765/overlay.js"></script>
//   <unmask-verdict src="ws://127.0.0.1:8765/ws" stream="cam"></unmask-verdict>
//
// docs/overlay.md describes its attributes, events and CSS variables; asyncapi.yaml, next to this script, the messages.
// Pages of other origins need `unmask monitor --allow-origin`.
//
// Stream names come from outside the program, so all text is set as text, never as HTML.

import { BadgeList, FaceBoxes, badgesOf, noVerdict } from "./shared/badges.js";
import { element, setText } from "./shared/dom.js";
import { Feed, webSocketUrl } from "./shared/feed.js";
import { SEVERITY, announcement } from "./shared/labels.js";
import { verdictStyle } from "./shared/verdict-style.js";

// Longer delays than that of any broadcast would only collect messages.
const MAX_HOLD_BACK_MS = 60000;

/** Faces shown with the attribute `sample`, to try a style. */
const SAMPLE = [
  {
    stream: "sample",
    state: "live",
    faces: [
      { face: 1, state: "fake", p_fake: 0.93, box: [0.16, 0.3, 0.16, 0.36], window_fill: 1 },
      { face: 2, state: "uncertain", p_fake: 0.52, box: [0.42, 0.24, 0.16, 0.36], window_fill: 1 },
      { face: 3, state: "real", p_fake: 0.08, box: [0.7, 0.34, 0.16, 0.36], window_fill: 1 },
    ],
  },
  { stream: "another", state: "stalled", faces: [] },
];

/** Large badges with the verdicts of one server, or with the reason why there is none. */
export class UnmaskVerdict extends HTMLElement {
  static observedAttributes = ["src", "stream", "face", "hide", "follow", "sample", "delay-ms", "token"];

  #feed = null;
  #corner;
  #list;
  #badges;
  #boxes;
  #more;
  #announcement;
  #states = new Map();
  #connected = null;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [verdictStyle()];
    const followed = element("div", "followed");
    const boxes = element("ul", "boxes");
    followed.append(boxes);
    this.#corner = element("div", "corner");
    this.#list = element("ul");
    this.#more = element("p", "more");
    this.#more.setAttribute("aria-hidden", "true");
    this.#corner.append(this.#list, this.#more);
    this.#announcement = element("p", "visually-hidden");
    // Announced by screen readers when a state changes, but not when only a score does.
    this.#announcement.setAttribute("role", "status");
    root.append(followed, this.#corner, this.#announcement);
    this.#badges = new BadgeList(this.#list);
    this.#boxes = new FaceBoxes(boxes);
  }

  connectedCallback() {
    this.#open();
  }

  disconnectedCallback() {
    this.#feed?.stop();
    this.#feed = null;
  }

  attributeChangedCallback(name) {
    if (!this.isConnected || !this.#feed) return;
    if (name === "src" || name === "token") this.#open();
    else if (name === "delay-ms") this.#feed.holdBackMs = this.#holdBackMs;
    else this.#render();
  }

  #open() {
    this.#feed?.stop();
    const feed = new Feed(this.getAttribute("src") || webSocketUrl(import.meta.url));
    this.#feed = feed;
    feed.holdBackMs = this.#holdBackMs;
    feed.token = this.getAttribute("token");
    feed.addEventListener("change", () => {
      if (feed === this.#feed) this.#render();
    });
    feed.addEventListener("message", (event) => {
      const message = event.detail;
      if (message.type === "verdict" && this.#wants(message.stream, message.face)) this.#send("verdict", message);
    });
    feed.start();
    this.#render();
  }

  get #holdBackMs() {
    return Math.min(Math.max(Number(this.getAttribute("delay-ms")) || 0, 0), MAX_HOLD_BACK_MS);
  }

  #wants(stream, face) {
    const wantedStream = this.getAttribute("stream");
    const wantedFace = this.getAttribute("face");
    return (!wantedStream || stream === wantedStream) && (!wantedFace || String(face) === wantedFace);
  }

  #send(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  #render() {
    const { badges: all, named } = this.#describe();
    this.#reportChanges(all);
    const hidden = new Set((this.getAttribute("hide") ?? "").split(/[\s,]+/));
    const badges = all.filter(({ state }) => !hidden.has(state));
    // The boxes of several streams have no place on one video.
    const follow = this.hasAttribute("follow") && !named;
    this.#boxes.show(follow ? badges.filter(({ box }) => box) : []);
    const listed = follow ? badges.filter(({ box }) => !box) : badges;
    this.#badges.show(listed);
    this.#fit(listed);
    setText(this.#announcement, announcement(badges.map(({ state, detail }) => ({ state, name: detail }))));
  }

  /** Dispatches `connection` and, for each face whose state has changed, `statechange`. */
  #reportChanges(badges) {
    const { connected, problem } = this.#feed;
    if (connected !== this.#connected) {
      this.#connected = connected;
      this.#send("connection", { connected, problem });
    }
    const faces = badges.filter(({ box }) => box);
    const current = new Map(faces.map((badge) => [badge.key, badge]));
    for (const [key, previous] of this.#states) {
      if (current.has(key)) continue;
      this.#states.delete(key);
      this.#send("statechange", { stream: previous.stream, face: previous.face, state: "none", previous: previous.state, p_fake: null });
    }
    for (const [key, { stream, face, state, p_fake }] of current) {
      const previous = this.#states.get(key)?.state ?? "none";
      this.#states.set(key, { stream, face, state });
      if (state !== previous) this.#send("statechange", { stream, face, state, previous, p_fake });
    }
  }

  /** Hides the least severe badges where the page limits the height of the element, and counts them instead. */
  #fit(badges) {
    const items = [...this.#list.children];
    for (const item of items) item.hidden = false;
    setText(this.#more, "");
    // The corner begins at the top of the element, or, with `follow`, keeps a margin to its edges.
    const margin = parseFloat(getComputedStyle(this.#corner).marginTop);
    const room = this.getBoundingClientRect().height - 2 * margin;
    const end = (node) => node.getBoundingClientRect().bottom - this.#corner.getBoundingClientRect().top;
    // Half a pixel for rounding.
    if (!items.length || end(this.#list) <= room + 0.5) return;
    setText(this.#more, hiddenText(badges));
    const limit = room - (end(this.#more) - end(this.#list));
    const shown = Math.max(1, items.filter((item) => end(item) <= limit).length);
    items.slice(shown).forEach((item) => (item.hidden = true));
    setText(this.#more, hiddenText(badges.slice(shown)));
  }

  /** Returns the badges, and whether they are of several streams, whose names they show then. */
  #describe() {
    const none = (detail) => ({ badges: [noVerdict("server", detail)], named: false });
    const sample = this.hasAttribute("sample");
    if (!sample && !this.#feed.connected) return none(this.#feed.problem ?? "not connected to unmask");
    const wanted = this.getAttribute("stream");
    const all = sample ? SAMPLE : this.#feed.current();
    const one = sample && (wanted || this.hasAttribute("follow"));
    const streams = one ? SAMPLE.slice(0, 1) : all.filter(({ stream }) => !wanted || stream === wanted);
    if (!streams.length) return none(wanted ? `no stream named ${wanted}` : "no stream");
    const wants = sample ? () => true : (stream, face) => this.#wants(stream, face);
    const named = streams.length > 1;
    return { badges: badgesOf(streams, wants, named), named };
  }
}

function hiddenText(badges) {
  const fakes = badges.filter(({ state }) => state === "fake").length;
  return `${badges.length} more${fakes ? `, ${fakes} of them fake` : ""}`;
}

/** States that the attribute `hide` may contain. */
export const STATES = SEVERITY;

if (!customElements.get("unmask-verdict")) customElements.define("unmask-verdict", UnmaskVerdict);
