// Evidence that the server keeps of events: its list, and a dialog that shows one event.

import { element, setText } from "../shared/dom.js";
import { FACE_LABELS, percent } from "../shared/labels.js";

const ROUTE = "/events";
const LIMIT = 50;
// Evidence is complete some seconds after the verdict.
const POLL_MS = 5000;

export class Evidence extends EventTarget {
  #dialog;
  #known = new Set();
  #timer = 0;

  constructor(dialog) {
    super();
    this.#dialog = dialog;
    dialog.addEventListener("close", () => dialog.querySelector("video").removeAttribute("src"));
  }

  /** Starts to ask for new events if the server has them; `routes` are those of its health report. */
  start(routes) {
    clearInterval(this.#timer);
    if (!routes.includes(ROUTE)) return;
    this.#timer = setInterval(() => this.#refresh(), POLL_MS);
    this.#refresh();
  }

  /** Dispatches `event` for each event that is new on this page, the oldest first. */
  async #refresh() {
    if (document.hidden) return;
    try {
      const response = await fetch(`events?limit=${LIMIT}`, { cache: "no-store" });
      if (!response.ok) return;
      const { enabled, events } = await response.json();
      if (!enabled) clearInterval(this.#timer);
      for (const event of events.reverse()) {
        if (this.#known.has(event.id)) continue;
        this.#known.add(event.id);
        this.dispatchEvent(new CustomEvent("event", { detail: event }));
      }
    } catch {
      // The server is gone, as the page shows already; the next attempt follows.
    }
  }

  /** Opens the dialog with an event. */
  show(event) {
    const find = (selector) => this.#dialog.querySelector(selector);
    const address = (name) => `events/${encodeURIComponent(event.id)}/${name}`;
    setText(find("h2"), `${event.stream}: face ${event.face}`);
    const kind = event.kind === "control" ? "random sample" : FACE_LABELS[event.state] ?? event.state;
    const score = event.p_fake === null ? "" : `, ${percent(event.p_fake)} fake`;
    setText(find(".facts"), `${new Date(1000 * event.time).toLocaleString()} · ${kind}${score}`);
    const frame = find("img.frame");
    frame.hidden = !event.frame;
    if (event.frame) frame.src = address(event.frame);
    frame.alt = `Frame of the verdict, with the box of face ${event.face}`;
    this.#showClip(event, address);
    find(".crops").replaceChildren(...event.crops.map((name, index) => {
      const image = element("img");
      image.src = address(name);
      image.alt = `Crop ${index + 1} of ${event.crops.length}`;
      image.loading = "lazy";
      const item = element("li");
      item.append(image);
      return item;
    }));
    const files = [event.clip.file, event.frame, event.trail, event.manifest].filter(Boolean);
    find(".files").replaceChildren(...files.map((name) => {
      const link = element("a", "", name);
      link.href = address(name);
      link.download = `${event.id}-${name}`;
      return link;
    }));
    this.#dialog.showModal();
  }

  #showClip({ clip }, address) {
    const video = this.#dialog.querySelector("video");
    const note = this.#dialog.querySelector(".no-clip");
    video.hidden = !clip.file;
    setText(note, clip.file ? "" : `There is no clip: ${clip.missing ?? "none was written"}.`);
    if (!clip.file) return;
    video.src = address(clip.file);
    video.onloadedmetadata = () => (video.currentTime = Math.max(0, clip.event_s - 1));
    video.onerror = () => {
      if (!video.hasAttribute("src")) return;
      video.hidden = true;
      setText(note, `This browser cannot play the clip (${clip.codec}); it can be saved below.`);
    };
  }
}
