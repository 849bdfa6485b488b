// Custom element with the live verdicts of unmask, for any page:
//
//   <script type="module" src="http://127.0.0.1:8765/overlay.js"></script>
//   <unmask-verdict src="ws://127.0.0.1:8765/ws" stream="cam"></unmask-verdict>
//
// Attributes: `src` (default: the server of this script), `stream` (default: all), `face` (default: all).
// Each verdict is dispatched as a `verdict` event with the message in `detail`; asyncapi.yaml, next to this script,
// describes the messages. Pages of other origins need `unmask monitor --allow-origin`.
//
// Stream names come from outside the program, so all text is set as text, never as HTML.

import { element, icon, setText } from "./shared/dom.js";
import { Feed, webSocketUrl } from "./shared/feed.js";
import { FACE_LABELS, REASON_LABELS, SCORED, STREAM_LABELS, announcement, bySeverity, percent } from "./shared/labels.js";

const STYLE = `
  :host {
    display: inline-block;
    overflow: clip;
    overflow-clip-margin: .6em;
    font: 600 28px/1.15 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
    color: #fff;
  }
  :host([hidden]), li[hidden] { display: none; }
  ul { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; gap: .4em; }
  li {
    --tone: #a3adba;
    display: grid;
    grid-template-columns: auto 1fr auto;
    align-items: center;
    column-gap: .6em;
    min-width: 11em;
    padding: .5em .8em .5em .5em;
    border-radius: .5em;
    border-left: .22em solid var(--tone);
    background: rgb(13 17 23 / 84%);
    box-shadow: 0 .1em .5em rgb(0 0 0 / 40%);
  }
  .more { margin: .6em 0 0; font-size: .55em; font-weight: 500; color: #d5dbe3; text-shadow: 0 0 .3em #000, 0 0 .3em #000; }
  .more:empty { display: none; }
  li[data-state="real"] { --tone: #38d39f; }
  li[data-state="uncertain"] { --tone: #ffc145; }
  li[data-state="fake"] { --tone: #ff6b61; }
  li[data-state="warming"] { --tone: #8ab4ff; }
  li[data-state="fake"] { background: rgb(70 12 12 / 90%); }
  svg {
    width: 1.5em;
    height: 1.5em;
    fill: none;
    stroke: var(--tone);
    stroke-width: 2.4;
    stroke-linecap: round;
    stroke-linejoin: round;
  }
  .label { color: var(--tone); letter-spacing: .01em; }
  .detail { display: block; margin-top: .15em; font-weight: 500; font-size: .55em; color: #d5dbe3; overflow-wrap: anywhere; }
  .visually-hidden { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }
  .score { font-variant-numeric: tabular-nums; text-align: right; }
  .score b { font-weight: inherit; }
  .score small { display: block; font-weight: 500; font-size: .45em; color: #d5dbe3; }
`;

/** Large badges with the verdicts of one server, or with the reason why there is none. */
export class UnmaskVerdict extends HTMLElement {
  static observedAttributes = ["src", "stream", "face"];

  #feed = null;
  #list;
  #more;
  #announcement;
  #badges = new Map();

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    // Not a <style> element, which the security policy of the page may forbid.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.#list = element("ul");
    this.#more = element("p", "more");
    this.#more.setAttribute("aria-hidden", "true");
    this.#announcement = element("p", "visually-hidden");
    // Announced by screen readers when a state changes, but not when only a score does.
    this.#announcement.setAttribute("role", "status");
    root.append(this.#list, this.#more, this.#announcement);
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
    if (name === "src") this.#open();
    else this.#render();
  }

  #open() {
    this.#feed?.stop();
    const feed = new Feed(this.getAttribute("src") || webSocketUrl(import.meta.url));
    this.#feed = feed;
    feed.addEventListener("change", () => {
      if (feed === this.#feed) this.#render();
    });
    feed.addEventListener("message", (event) => {
      const message = event.detail;
      if (message.type === "verdict" && this.#wants(message.stream, message.face)) {
        this.dispatchEvent(new CustomEvent("verdict", { detail: message, bubbles: true, composed: true }));
      }
    });
    feed.start();
    this.#render();
  }

  #wants(stream, face) {
    const wantedStream = this.getAttribute("stream");
    const wantedFace = this.getAttribute("face");
    return (!wantedStream || stream === wantedStream) && (!wantedFace || String(face) === wantedFace);
  }

  #render() {
    const badges = this.#describe();
    const currentKeys = new Set(badges.map((badge) => badge.key));
    for (const [key, item] of this.#badges) {
      if (!currentKeys.has(key)) {
        item.remove();
        this.#badges.delete(key);
      }
    }
    badges.forEach((badge, index) => {
      const item = this.#badges.get(badge.key) ?? newBadge();
      this.#badges.set(badge.key, item);
      if (item.dataset.state !== badge.state) {
        item.dataset.state = badge.state;
        item.querySelector("svg").replaceWith(icon(badge.state));
      }
      setText(item.querySelector(".label"), FACE_LABELS[badge.state]);
      setText(item.querySelector(".detail"), badge.detail);
      setText(item.querySelector("b"), badge.score);
      setText(item.querySelector("small"), badge.unit);
      if (this.#list.children[index] !== item) this.#list.insertBefore(item, this.#list.children[index] ?? null);
    });
    this.#fit(badges);
    setText(this.#announcement, announcement(badges.map(({ state, detail }) => ({ state, name: detail }))));
  }

  /** Hides the least severe badges where the page limits the height of the element, and counts them instead. */
  #fit(badges) {
    const items = [...this.#list.children];
    for (const item of items) item.hidden = false;
    setText(this.#more, "");
    const room = this.getBoundingClientRect();
    const bottom = (node) => node.getBoundingClientRect().bottom;
    // Half a pixel for rounding.
    if (!items.length || bottom(this.#list) <= room.bottom + 0.5) return;
    setText(this.#more, hiddenText(badges));
    const limit = room.bottom - (bottom(this.#more) - bottom(this.#list));
    const shown = Math.max(1, items.filter((item) => bottom(item) <= limit).length);
    items.slice(shown).forEach((item) => (item.hidden = true));
    setText(this.#more, hiddenText(badges.slice(shown)));
  }

  #describe() {
    const noVerdict = (key, detail) => ({ key, state: "none", detail, score: "", unit: "" });
    if (!this.#feed.connected) return [noVerdict("server", this.#feed.problem ?? "not connected to unmask")];
    const all = this.#feed.current();
    const streams = all.filter(({ stream }) => this.#wants(stream, this.getAttribute("face")));
    if (!streams.length) {
      const wanted = this.getAttribute("stream");
      return [noVerdict("server", wanted ? `no stream named ${wanted}` : "no stream")];
    }
    const badges = [];
    for (const { stream, state, faces } of streams) {
      const prefix = all.length > 1 && !this.getAttribute("stream") ? `${stream} · ` : "";
      const shown = faces.filter((face) => this.#wants(stream, face.face));
      if (state !== "live" || !shown.length) {
        const reason = state === "live" ? "waiting for a face" : STREAM_LABELS[state] ?? state;
        badges.push(noVerdict(JSON.stringify([stream]), prefix + reason));
        continue;
      }
      for (const face of shown) {
        const scored = SCORED.has(face.state);
        badges.push({
          key: JSON.stringify([stream, face.face]),
          state: face.state,
          detail: `${prefix}face ${face.face}${face.reason ? ` · ${REASON_LABELS[face.reason] ?? face.reason}` : ""}`,
          // A score that does not lead to a verdict would be read as one.
          score: face.reason ? "" : percent(scored ? face.p_fake : face.window_fill),
          unit: face.reason ? "" : scored ? "fake" : "ready",
        });
      }
    }
    // Stable: equally severe badges stay in the order of streams and faces.
    return badges.sort(bySeverity);
  }
}

function hiddenText(badges) {
  const fakes = badges.filter(({ state }) => state === "fake").length;
  return `${badges.length} more${fakes ? `, ${fakes} of them fake` : ""}`;
}

function newBadge() {
  const item = element("li");
  const text = element("span");
  text.append(element("span", "label"), element("span", "detail"));
  const score = element("span", "score");
  score.append(element("b"), element("small"));
  item.append(icon("none"), text, score);
  return item;
}

if (!customElements.get("unmask-verdict")) customElements.define("unmask-verdict", UnmaskVerdict);
