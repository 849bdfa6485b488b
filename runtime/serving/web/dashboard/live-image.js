// The frame that was scored, with the boxes of the verdicts on that very frame.

import { ICON_PATHS } from "../shared/dom.js";
import { FACE_LABELS, REASON_LABELS, SCORED, bySeverity, percent } from "../shared/labels.js";

// Frames come after the verdicts on them. Verdicts that wait longer for their frame are forgotten.
const WAIT_MS = 5000;
// A frame without a newer one for this long is no longer live.
const EXPIRY_MS = 3000;
// Space between a label and the edge of the card.
const MARGIN = 6;
// Patterns that differ without colour.
const DASHES = { fake: [], real: [], uncertain: [9, 5], warming: [2, 5] };
const WIDTHS = { fake: 5, real: 2.5, uncertain: 3.5, warming: 2.5 };

export class LiveImage {
  #canvas;
  #verdicts = new Map();
  #shown = null;
  #decoding = false;
  #next = null;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Remembers a verdict until the frame with the same time is shown. */
  record(verdict) {
    const now = performance.now();
    const faces = this.#verdicts.get(verdict.pts_s)?.faces ?? [];
    // Moved to the end, so that the map is in the order of arrival.
    this.#verdicts.delete(verdict.pts_s);
    this.#verdicts.set(verdict.pts_s, { at: now, faces: [...faces, verdict] });
    for (const [time, { at }] of this.#verdicts) {
      if (now - at < WAIT_MS) break;
      this.#verdicts.delete(time);
    }
  }

  /** Shows a frame once it is decoded; a newer one takes the place of one that waits. */
  async show(preview) {
    this.#next = preview;
    if (this.#decoding) return;
    this.#decoding = true;
    while (this.#next) {
      const { header, jpeg } = this.#next;
      this.#next = null;
      try {
        const bitmap = await createImageBitmap(jpeg);
        this.#shown?.bitmap.close();
        this.#shown = { bitmap, pts_s: header.pts_s, at: performance.now(), verdicts: this.#verdicts.get(header.pts_s)?.faces ?? [] };
        this.draw();
      } catch (error) {
        console.warn("unmask: a frame could not be decoded", error);
      }
    }
    this.#decoding = false;
  }

  /** Removes a frame that is no longer live: without a newer one, or because its stream has no frames. */
  expire(live) {
    if (!this.#shown || (live && performance.now() - this.#shown.at < EXPIRY_MS)) return;
    this.#shown.bitmap.close();
    this.#shown = this.#next = null;
    this.#verdicts.clear();
    this.draw();
  }

  draw() {
    const canvas = this.#canvas;
    const scale = globalThis.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    delete canvas.dataset.ptsS;
    if (!this.#shown || !width || !height) return;
    const { bitmap, verdicts, pts_s } = this.#shown;
    canvas.dataset.ptsS = pts_s;
    canvas.dataset.boxes = verdicts.length;
    const zoom = Math.min(width / bitmap.width, height / bitmap.height);
    const frame = { w: zoom * bitmap.width, h: zoom * bitmap.height };
    frame.x = (width - frame.w) / 2;
    frame.y = (height - frame.h) / 2;
    context.drawImage(bitmap, frame.x, frame.y, frame.w, frame.h);
    const style = getComputedStyle(canvas);
    // The most severe one last, so that no other box covers it.
    for (const verdict of [...verdicts].sort(bySeverity).reverse()) {
      const tone = style.getPropertyValue(`--on-image-${verdict.state}`).trim() || "#fff";
      drawFace(context, verdict, frame, { tone, scale });
    }
  }
}

function drawFace(context, verdict, frame, { tone, scale }) {
  const [x, y, w, h] = verdict.box;
  const box = { x: frame.x + x * frame.w, y: frame.y + y * frame.h, w: w * frame.w, h: h * frame.h };
  const line = Math.max(1, WIDTHS[verdict.state] * scale * Math.min(1, frame.w / scale / 420 + 0.3));
  context.lineJoin = "round";
  // A dark line below the coloured one keeps it visible on any frame.
  for (const [style, width] of [["rgb(0 0 0 / 65%)", line + 2 * scale], [tone, line]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.setLineDash(style === tone ? DASHES[verdict.state].map((length) => length * scale) : []);
    context.strokeRect(box.x, box.y, box.w, box.h);
  }
  context.setLineDash([]);
  drawLabel(context, verdict, box, frame, { tone, scale });
}

function drawLabel(context, verdict, box, frame, { tone, scale }) {
  const size = scale * Math.max(11, Math.min(32, frame.w / scale / 30));
  const roomy = frame.w / scale > 420;
  const score = verdict.reason && roomy ? REASON_LABELS[verdict.reason] ?? verdict.reason
    : SCORED.has(verdict.state) && !verdict.reason ? percent(verdict.p_fake) : "";
  const text = [FACE_LABELS[verdict.state], score, roomy ? `· face ${verdict.face}` : ""].filter(Boolean).join(" ");
  context.font = `650 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  const width = context.measureText(text).width + 2.1 * size;
  const height = 1.6 * size;
  const margin = MARGIN * scale;
  const x = Math.max(frame.x + margin, Math.min(box.x, frame.x + frame.w - width - margin));
  const above = box.y - height - 2 * scale;
  const y = above >= frame.y ? above : Math.min(box.y + box.h + 2 * scale, frame.y + frame.h - height - margin);
  context.fillStyle = tone;
  context.beginPath();
  context.roundRect(x, y, width, height, 0.3 * size);
  context.fill();
  context.strokeStyle = context.fillStyle = "#10151c";
  context.save();
  context.translate(x + 0.35 * size, y + 0.27 * size);
  context.scale(size / 23, size / 23);
  context.lineWidth = 3;
  context.lineCap = "round";
  context.stroke(new Path2D(ICON_PATHS[verdict.state] ?? ICON_PATHS.none));
  context.restore();
  context.textBaseline = "middle";
  context.fillText(text, x + 1.7 * size, y + 0.54 * height);
}
