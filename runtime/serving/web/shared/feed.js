// Connection of a page to a server.

import { MessageDelay } from "./message-delay.js";

// Version of the messages that this script reads.
const PROTOCOL = 2;
// Maximum age of a shown verdict, counted from the time at which it was sent.
const EXPIRY_MS = 3000;
// Heartbeats are sent every second. If no message younger than EXPIRY_MS arrives for this long, the page reconnects.
const SILENCE_MS = 5000;
const MIN_DELAY_MS = 250;
const MAX_DELAY_MS = 5000;
const TICK_MS = 250;
// Close codes of a server that needs a token, or whose token has ended.
const TOKEN_CODES = new Set([4401, 4403]);

const utf8 = new TextDecoder();

/**
 * Connection to a server, with reconnection for ever, and the current state of all streams.
 *
 * Dispatches a `message` event with each message in `detail`, a `verdict` event with each verdict and the time at which
 * it was sent in `detail`, a `preview` event with header and JPEG of each requested frame in `detail`, and a `change`
 * event when the state may have changed, also because verdicts expire.
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
  /** Time in milliseconds by which verdicts, states and frames of streams are held back. */
  holdBackMs = 0;
  /** Token for a server that needs one, where the browser has no cookie from its login page. */
  token = null;
  /** Whether the server has refused the connection because of the token, or because there is none. */
  needsToken = false;

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
  #previewRequests = new Map();
  #heldBack = [];
  #release = 0;

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

  /**
   * Requests frames of one stream, or of all others with null, as `request_previews` does: no frames with a width of 0;
   * with null the stream follows the request about all others again.
   */
  requestPreviews(stream, width, rate_hz) {
    const request = JSON.stringify({ type: "request_previews", stream, width, ...(width && { rate_hz }) });
    const known = this.#previewRequests.get(stream);
    if (known === request || (known === undefined && width === null)) return;
    if (width === null) this.#previewRequests.delete(stream);
    else this.#previewRequests.set(stream, request);
    if (this.#greeted) this.#socket.send(request);
  }

  /** Current state, `[{stream, state, reason, faces: [verdict]}]`; empty while disconnected. */
  current() {
    if (!this.connected) return [];
    const now = performance.now();
    return [...this.#streams.values()].map(({ message, faces }) => ({
      stream: message.stream,
      state: message.state,
      reason: message.reason,
      thresholds: message.thresholds ?? null,
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
    socket.binaryType = "arraybuffer";
    this.#lastTimelyAt = performance.now();
    this.#messageDelay = new MessageDelay();
    this.#opened = this.#greeted = false;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      this.#opened = true;
      if (this.token) socket.send(JSON.stringify({ type: "auth", token: this.token }));
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      this.needsToken = TOKEN_CODES.has(code);
      if (this.needsToken) {
        this.problem = reason;
        this.#retryDelay = MAX_DELAY_MS;
      } else if (!this.#opened) {
        this.#explain();
      }
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
    this.connected = this.#greeted = false;
    this.#streams.clear();
    this.#heldBack.length = 0;
    clearTimeout(this.#release);
    this.#release = 0;
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
    if (data instanceof ArrayBuffer) {
      this.#holdBack(() => this.dispatchEvent(new CustomEvent("preview", { detail: parsePreview(data) })));
      return;
    }
    const message = parse(data);
    if (!this.#greeted) {
      this.problem = problemWith(message, this.#url);
      if (this.problem) {
        this.#retryDelay = MAX_DELAY_MS;
        this.#reconnect();
        return;
      }
      this.#greeted = true;
      for (const request of this.#previewRequests.values()) this.#socket.send(request);
    }
    const now = performance.now();
    this.delay = this.#messageDelay.measure(message.time, now / 1000);
    const sentAt = now - 1000 * this.delay;
    if (now - sentAt < EXPIRY_MS) this.#lastTimelyAt = now;
    this.#count(message);
    if (message.type === "snapshot") {
      this.connected = true;
      this.needsToken = false;
      this.#retryDelay = MIN_DELAY_MS;
      for (const stream of message.streams) this.#apply(stream, now);
    }
    this.#holdBack((heldBackMs) => {
      if (message.type === "snapshot") {
        for (const verdict of message.verdicts) {
          // The server's clock may have been set back since the verdict.
          this.#apply(verdict, sentAt + heldBackMs - Math.max(0, 1000 * (message.time - verdict.time)));
        }
      } else {
        this.#apply(message, sentAt + heldBackMs);
      }
      this.dispatchEvent(new CustomEvent("message", { detail: message }));
      this.dispatchEvent(new Event("change"));
    });
  }

  /** Calls a function after `holdBackMs`, in the order of arrival, with the delay in milliseconds. */
  #holdBack(apply) {
    const heldBackMs = this.holdBackMs;
    if (!heldBackMs && !this.#heldBack.length) {
      apply(0);
      return;
    }
    this.#heldBack.push({ due: performance.now() + heldBackMs, apply: () => apply(heldBackMs) });
    this.#scheduleRelease();
  }

  #scheduleRelease() {
    if (this.#release || !this.#heldBack.length) return;
    this.#release = setTimeout(() => {
      this.#release = 0;
      while (this.#heldBack.length && this.#heldBack[0].due <= performance.now()) this.#heldBack.shift().apply();
      this.#scheduleRelease();
    }, Math.max(0, this.#heldBack[0].due - performance.now()));
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
      if (message.state === "removed") this.#streams.delete(message.stream);
      else this.#streams.set(message.stream, { message, faces: faces ?? new Map() });
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

/** Splits the binary message of a frame into its header and the JPEG. */
function parsePreview(data) {
  const start = 4 + new DataView(data).getUint32(0);
  const header = JSON.parse(utf8.decode(new Uint8Array(data, 4, start - 4)));
  return { header, jpeg: new Blob([new Uint8Array(data, start)], { type: "image/jpeg" }) };
}

/** Returns why the first message of a connection is not a hello that this script understands; null if it is. */
function problemWith(hello, url) {
  if (hello?.type !== "hello" || hello.software !== "unmask") return `Another program answers at ${url}.`;
  if (hello.protocol === PROTOCOL) return null;
  return `unmask ${hello.version} sends messages of version ${hello.protocol}, this page reads version ${PROTOCOL}: reload it.`;
}

/** Returns the WebSocket address of the server that a page or script was loaded from. */
export function webSocketUrl(url) {
  const socket = new URL("ws", url);
  socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
  return socket.href;
}
