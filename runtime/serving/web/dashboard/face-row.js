// One face of a stream: its state, its score and the curve of the last minute.

import { element, icon, setText } from "../shared/dom.js";
import { FACE_HELP, FACE_LABELS, REASON_LABELS, SCORED, percent } from "../shared/labels.js";

const HISTORY_S = 60;
// A longer pause between two scores interrupts the curve.
const GAP_S = 1.5;
const STAGES = ["decode", "detect", "crop", "backbone", "head"];

export class FaceRow {
  state = null;
  #scores = [];

  constructor(face) {
    this.node = document.getElementById("face-card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    this.badge = find(".badge");
    this.score = find(".score");
    this.title = find(".history title");
    this.curve = find(".curve");
    this.windowFill = find(".window-fill");
    this.progress = find("progress");
    this.stages = find(".stages");
    setText(find(".name"), `face ${face}`);
  }

  /** Adds a verdict to the history; `time` is in seconds of this page's monotonic clock. */
  record(verdict, time) {
    this.#scores.push([time, verdict.p_fake]);
    while (this.#scores[0][0] < time - HISTORY_S) this.#scores.shift();
  }

  render(verdict, thresholds) {
    if (verdict.state !== this.state) {
      this.state = verdict.state;
      this.node.dataset.state = verdict.state;
      this.badge.replaceChildren(icon(verdict.state), element("span", "", FACE_LABELS[verdict.state]));
      this.badge.title = FACE_HELP[verdict.state] ?? "";
    }
    // A score that does not lead to a verdict would be read as one.
    const reason = verdict.reason ? REASON_LABELS[verdict.reason] ?? verdict.reason : null;
    const score = SCORED.has(verdict.state) ? `${percent(verdict.p_fake)} fake` : `${percent(verdict.window_fill)} ready`;
    setText(this.score, reason ?? score);
    this.score.classList.toggle("reason", reason !== null);
    setText(this.windowFill, percent(verdict.window_fill));
    this.progress.value = verdict.window_fill;
    const latency = verdict.latency_ms;
    setText(this.stages, `${STAGES.map((stage) => `${stage} ${latency[stage].toFixed(1)}`).join(" · ")} ms`);
    this.#draw(thresholds ?? { real: 0.5, fake: 0.5 });
  }

  #draw({ real, fake }) {
    if (this.fake !== fake || this.real !== real) this.#drawThresholds(real, fake);
    const now = this.#scores.at(-1)?.[0] ?? 0;
    let line = "";
    let last = -Infinity;
    for (const [time, score] of this.#scores) {
      if (score === null) continue;
      const x = (600 * (time - now + HISTORY_S)) / HISTORY_S;
      // A single point is drawn as a dot: a line of length 0 with round caps.
      line += time - last > GAP_S ? `M${x.toFixed(1)} ${y(score)}h0` : `L${x.toFixed(1)} ${y(score)}`;
      last = time;
    }
    this.curve.setAttribute("d", line);
  }

  #drawThresholds(real, fake) {
    Object.assign(this, { real, fake });
    const find = (selector) => this.node.querySelector(selector);
    place(find(".zone-fake"), 0, y(fake));
    place(find(".zone-real"), y(real), 100 - y(real));
    find(".threshold").setAttribute("d", `M0 ${y(fake)}H600M0 ${y(real)}H600`);
    setText(find(".limit-fake"), `fake from ${percent(fake)}`);
    setText(find(".limit-real"), `real up to ${percent(real)}`);
    setText(this.title, `Probability of a fake in the last ${HISTORY_S} seconds; fake from ${percent(fake)}, real up to ${percent(real)}`);
  }
}

function y(score) {
  // Not up to the edges, where half of the line would be clipped.
  return (2 + 96 * (1 - score)).toFixed(1);
}

function place(rect, top, height) {
  rect.setAttribute("y", top);
  rect.setAttribute("height", height);
}
