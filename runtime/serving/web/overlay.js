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

// Version of the messages that this script reads.
const PROTOCOL = 2;
// Maximum age of a shown verdict, counted from the time at which it was sent.
const EXPIRY_MS = 3000;
// Heartbeats are sent every second. If no message younger than EXPIRY_MS arrives for this long, the page reconnects.
const SILENCE_MS = 5000;
const MIN_DELAY_MS = 250;
const MAX_DELAY_MS = 5000;
const TICK_MS = 250;
// Largest drift between the clocks of both machines; see `runtime/message_delay.py`.
const MAX_DRIFT = 1e-3;
// Names listed for each state in the announcement for screen readers.
const MAX_NAMES = 3;

const SCORED = new Set(["real", "uncertain", "fake"]);

export const FACE_LABELS = {
  warming: "Warming up",
  real: "Real",
  uncertain: "Uncertain",
  fake: "Fake",
  stale: "No verdict",
  none: "No verdict",
};

export const FACE_HELP = {
  warming: "Collecting samples of this face. There is no score yet.",
  real: "No sign of a fake was found. This is not proof.",
  uncertain: "The score is between the thresholds for real and fake.",
  fake: "The score is above the threshold for fake. This is not proof.",
};

/** Why the image does not allow a decision, for a verdict `uncertain` with a `reason`. */
export const REASON_LABELS = {
  no_motion: "no motion in the face",
  turned: "face turned or upside down",
};

export const STREAM_LABELS = {
  connecting: "connecting to the source",
  live: "live",
  no_face: "no face in view",
  too_slow: "frame rate too low",
  stalled: "no new frames",
  overloaded: "this machine is too slow",
  offline: "source offline",
  ended: "video ended",
};

// Icons that differ without colour: check mark, question mark, warning triangle, clock, dash.
const ICON_PATHS = {
  real: "M4.5 12.8 9.6 18 19.5 6.5",
  uncertain: "M8 9a4 4 0 1 1 5.6 3.7C12.4 13.3 12 14 12 15.2M12 19v.4",
  fake: "M12 3.5 22 20.5H2ZM12 10v4.8M12 17.4v.3",
  warming: "M12 3.5a8.5 8.5 0 1 0 8.5 8.5M12 7.5V12l3 2",
  none: "M6 12h12",
};

const SVG = "http://www.w3.org/2000/svg";

export function icon(state) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICON_PATHS[state] ?? ICON_PATHS.none);
  svg.append(path);
  return svg;
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Sets the text of a node only if it differs, so that screen readers do not repeat it. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Order in which verdicts matter to a viewer, for `sort`: fakes first. */
const SEVERITY = ["fake", "uncertain", "real", "warming", "none"];
export function bySeverity(a, b) {
  return SEVERITY.indexOf(a.state) - SEVERITY.indexOf(b.state);
}

/** Returns one sentence for each state of `[{state, name}]`, the most severe first, for screen readers. */
export function announcement(entries) {
  return SEVERITY.flatMap((state) => {
    const names = entries.filter((entry) => entry.state === state).map((entry) => entry.name);
    if (!names.length) return [];
    const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : "";
    return [`${FACE_LABELS[state]}: ${names.slice(0, MAX_NAMES).join(", ")}${more}.`];
  }).join(" ");
}

/** Delay of each message of one sender relative to the fastest one, as `runtime/message_delay.py` describes. */
export class MessageDelay {
  #offset = Infinity;
  #sent = -Infinity;
  #received = 0;

  /** Returns the delay in seconds, from the times of sending and receipt in seconds, each by its machine's clock. */
  measure(sent, received) {
    const difference = received - sent;
    const aged = this.#offset + MAX_DRIFT * (received - this.#received);
    // A time before that of the last message shows that the sender's clock was set back.
    this.#offset = sent < this.#sent ? difference : Math.min(aged, difference);
    this.#sent = sent;
    this.#received = received;
    return difference - this.#offset;
  }
}

/**
 * Connection to a server, with reconnection, and the current state of all streams.
 *
 * Dispatches a `message` event with each message in `detail`, a `verdict` event with each verdict and the time at which
 * it was sent in `detail`, and a `change` event when the state may have changed, also because verdicts expire.
 */
export class Feed extends EventTarget {
  /** Last `hello`; null before the first. */
  hello = null;
  connected = false;
  /** Text for the user with the reason why no messages are received; null if it is unknown. */
  problem = null;
  /** Delay of the last message in seconds. */
  delay = 0;
  /** Number of broadcast messages that never arrived, from gaps in `seq`. */
  lost = 0;
  seq = 0;

  #url;
  #socket = null;
  #streams = new Map();
  #retry = 0;
  #retryDelay = MIN_DELAY_MS;
  #ticker = 0;
  #lastTimelyAt = 0;
  #messageDelay = new MessageDelay();
  #opened = false;
  #greeted = false;

  constructor(url) {
    super();
    this.#url = url;
  }

  get url() {
    return this.#url;
  }

  start() {
    if (this.#ticker) return;
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#connect();
  }

  stop() {
    clearInterval(this.#ticker);
    clearTimeout(this.#retry);
    this.#ticker = 0;
    this.#disconnect();
  }

  /** Current state, `[{stream, state, reason, faces: [verdict]}]`; empty while disconnected. */
  current() {
    if (!this.connected) return [];
    const now = performance.now();
    return [...this.#streams.values()].map(({ message, faces }) => ({
      stream: message.stream,
      state: message.state,
      reason: message.reason,
      faces: [...faces.values()]
        .filter((face) => now - face.sentAt < EXPIRY_MS)
        .map((face) => face.message)
        .sort((a, b) => a.face - b.face),
    }));
  }

  #connect() {
    let socket;
    try {
      socket = new WebSocket(this.#url);
    } catch (error) {
      console.error(`unmask: cannot connect to ${this.#url}`, error);
      return;
    }
    this.#socket = socket;
    this.#lastTimelyAt = performance.now();
    this.#messageDelay = new MessageDelay();
    this.#opened = this.#greeted = false;
    socket.onopen = () => {
      if (socket === this.#socket) this.#opened = true;
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      if (!this.#opened) this.#explain();
      this.#reconnect();
    };
  }

  /** Requests the same address over HTTP to find the reason of a refusal, which browsers hide for a WebSocket. */
  async #explain() {
    const address = new URL(this.#url);
    address.protocol = address.protocol === "wss:" ? "https:" : "http:";
    // The page's origin as a WebSocket sends it: `null` for a page opened from a file.
    address.searchParams.set("origin", globalThis.origin);
    let problem = null;
    try {
      const response = await fetch(address, { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(SILENCE_MS) });
      problem = response.status === 426
        ? "The server answers, but a proxy in between does not pass on WebSockets (the headers Upgrade and Connection)."
        : (await response.text()).trim().slice(0, 300) || `HTTP ${response.status}`;
    } catch {
      // No response, or one that this page may not read.
    }
    if (this.connected || !this.#ticker) return;
    this.problem = problem;
    this.dispatchEvent(new Event("change"));
  }

  #disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.connected = false;
    this.#streams.clear();
    this.dispatchEvent(new Event("change"));
  }

  #reconnect() {
    this.#disconnect();
    clearTimeout(this.#retry);
    if (!this.#ticker) return;
    this.#retry = setTimeout(() => this.#connect(), this.#retryDelay * (0.8 + 0.4 * Math.random()));
    this.#retryDelay = Math.min(2 * this.#retryDelay, MAX_DELAY_MS);
  }

  #tick() {
    if (this.#socket && performance.now() - this.#lastTimelyAt > SILENCE_MS) this.#reconnect();
    this.dispatchEvent(new Event("change"));
  }

  #receive(data) {
    const message = parse(data);
    if (!this.#greeted) {
      this.problem = problemWith(message, this.#url);
      if (this.problem) {
        this.#retryDelay = MAX_DELAY_MS;
        this.#reconnect();
        return;
      }
      this.#greeted = true;
    }
    const now = performance.now();
    this.delay = this.#messageDelay.measure(message.time, now / 1000);
    const sentAt = now - 1000 * this.delay;
    if (now - sentAt < EXPIRY_MS) this.#lastTimelyAt = now;
    this.#count(message);
    if (message.type === "snapshot") {
      this.connected = true;
      this.#retryDelay = MIN_DELAY_MS;
      for (const stream of message.streams) this.#apply(stream, now);
      for (const verdict of message.verdicts) {
        // The server's clock may have been set back since the verdict.
        this.#apply(verdict, sentAt - Math.max(0, 1000 * (message.time - verdict.time)));
      }
    } else {
      this.#apply(message, sentAt);
    }
    this.dispatchEvent(new CustomEvent("message", { detail: message }));
    this.dispatchEvent(new Event("change"));
  }

  #count(message) {
    if (message.type === "hello") {
      if (this.hello?.session === message.session) this.lost += Math.max(message.seq - this.seq, 0);
      else this.lost = 0;
      this.hello = message;
    } else if (message.type !== "snapshot") {
      this.lost += Math.max(message.seq - this.seq - 1, 0);
    }
    this.seq = message.seq;
  }

  #apply(message, sentAt) {
    if (message.type === "stream") {
      const faces = message.state === "live" ? this.#streams.get(message.stream)?.faces : undefined;
      this.#streams.set(message.stream, { message, faces: faces ?? new Map() });
    } else if (message.type === "verdict") {
      // A verdict may arrive before the first message of its stream.
      const known = this.#streams.get(message.stream) ?? { message: { ...message, state: "live" }, faces: new Map() };
      this.#streams.set(message.stream, known);
      if (message.state === "stale") known.faces.delete(message.face);
      else known.faces.set(message.face, { message, sentAt });
      for (const [face, other] of known.faces) {
        if (sentAt - other.sentAt > EXPIRY_MS) known.faces.delete(face);
      }
      this.dispatchEvent(new CustomEvent("verdict", { detail: { verdict: message, sentAt } }));
    }
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

/** Returns why the first message of a connection is not a hello that this script understands; null if it is. */
function problemWith(hello, url) {
  if (hello?.type !== "hello" || hello.software !== "unmask") return `Another program answers at ${url}.`;
  if (hello.protocol === PROTOCOL) return null;
  return `unmask ${hello.version} sends messages of version ${hello.protocol}, this page reads version ${PROTOCOL}: reload it.`;
}

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

/** Returns the WebSocket address of the server that a page or script was loaded from. */
export function webSocketUrl(url) {
  const socket = new URL("ws", url);
  socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
  return socket.href;
}

if (!customElements.get("unmask-verdict")) customElements.define("unmask-verdict", UnmaskVerdict);
