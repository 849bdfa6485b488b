// One stream: its live frame, its faces and its health.

import { element, setText } from "../shared/dom.js";
import { FACE_LABELS, STREAM_LABELS, bySeverity, percent } from "../shared/labels.js";
import { FaceRow } from "./face-row.js";
import { LiveImage } from "./live-image.js";
import { StreamHealth } from "./stream-health.js";

// Faces listed on a small card, the most severe ones; an enlarged one lists all.
const MAX_FACES = 3;

export class StreamCard {
  #rows = new Map();
  /** Most severe state of the faces; `none` without a verdict. */
  state = "none";
  /** State of the stream, as in its message. */
  streamState = "connecting";

  constructor(stream, open) {
    this.stream = stream;
    this.node = document.getElementById("stream-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.button = find(".open");
    this.list = find(".faces");
    this.more = find(".more");
    this.stateText = find(".state");
    this.idle = find(".idle");
    this.canvas = find("canvas");
    this.image = new LiveImage(this.canvas);
    this.health = new StreamHealth(find(".health"));
    setText(this.button, stream);
    this.node.setAttribute("aria-label", stream);
    this.idle.append(element("strong", "", FACE_LABELS.none), element("span"));
    this.button.addEventListener("click", open);
    find(".view").addEventListener("click", open);
  }

  record(verdict, time) {
    if (verdict.state === "stale") return;
    this.#row(verdict.face).record(verdict, time);
    this.image.record(verdict);
    this.health.record(verdict, time);
  }

  /** Shows the state; with `large` all faces and all figures. */
  render({ state, reason, faces }, { thresholds, counters, large }) {
    const live = state === "live";
    const shown = live ? faces : [];
    this.streamState = state;
    this.state = [...shown].sort(bySeverity)[0]?.state ?? "none";
    this.node.dataset.stream = state;
    this.node.dataset.state = this.state;
    this.node.classList.toggle("large", large);
    this.button.setAttribute("aria-expanded", String(large));
    const lossy = live && this.health.lossy;
    this.node.classList.toggle("lossy", lossy);
    setText(this.stateText, lossy ? `⚠ ${percent(this.health.droppedShare)} dropped` : STREAM_LABELS[state] ?? state);
    setText(this.idle.lastChild, reason ?? (live ? "waiting for a face" : STREAM_LABELS[state] ?? state));
    this.idle.hidden = shown.length > 0;
    // A frame without faces is still live; any other stream has no live frame.
    this.image.expire(live || state === "no_face");
    this.canvas.setAttribute("aria-label", this.#describe(shown));
    this.#renderFaces(shown, { thresholds, large });
    this.health.render(counters, live && shown.length ? reason : null);
  }

  #renderFaces(faces, { thresholds, large }) {
    const current = new Set(faces.map(({ face }) => face));
    for (const [face, row] of this.#rows) {
      if (current.has(face)) continue;
      row.node.remove();
      this.#rows.delete(face);
    }
    const listed = large ? faces : [...faces].sort(bySeverity).slice(0, MAX_FACES);
    const nodes = listed.map((verdict) => {
      const row = this.#row(verdict.face);
      row.render(verdict, thresholds);
      return row.node;
    });
    for (const node of [...this.list.children]) {
      if (!nodes.includes(node)) node.remove();
    }
    nodes.forEach((node, index) => {
      if (this.list.children[index] !== node) this.list.insertBefore(node, this.list.children[index] ?? null);
    });
    const hidden = faces.length - listed.length;
    setText(this.more, hidden ? `${hidden} more ${hidden === 1 ? "face" : "faces"}` : "");
  }

  #row(face) {
    if (!this.#rows.has(face)) this.#rows.set(face, new FaceRow(face));
    return this.#rows.get(face);
  }

  #describe(faces) {
    if (!faces.length) return `Live frame of ${this.stream}, without a face`;
    const texts = faces.map(({ face, state, p_fake }) => `face ${face} ${FACE_LABELS[state]}${p_fake === null ? "" : ` ${percent(p_fake)}`}`);
    return `Live frame of ${this.stream}: ${texts.join(", ")}`;
  }
}
