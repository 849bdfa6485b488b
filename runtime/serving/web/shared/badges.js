// Badges of <unmask-verdict>: what each says, and their elements.

import { element, icon, setText } from "./dom.js";
import { FACE_LABELS, REASON_LABELS, SCORED, STREAM_LABELS, bySeverity, percent } from "./labels.js";

/** Returns the badge of something that has no verdict. */
export function noVerdict(key, detail) {
  return { key, state: "none", detail, score: "", unit: "" };
}

/**
 * Returns the badges of the streams, the most severe first.
 *
 * `streams` are those of `Feed.current`, of which `wants(stream, face)` chooses faces. Names of streams are shown with
 * `named`.
 */
export function badgesOf(streams, wants, named) {
  const badges = [];
  for (const { stream, state, faces } of streams) {
    const prefix = named ? `${stream} · ` : "";
    const shown = faces.filter((face) => wants(stream, face.face));
    if (state !== "live" || !shown.length) {
      const reason = state === "live" ? "waiting for a face" : STREAM_LABELS[state] ?? state;
      badges.push(noVerdict(JSON.stringify([stream]), prefix + reason));
      continue;
    }
    for (const face of shown) badges.push(badgeOf(stream, face, prefix));
  }
  // Stable: equally severe badges stay in the order of streams and faces.
  return badges.sort(bySeverity);
}

function badgeOf(stream, face, prefix) {
  const scored = SCORED.has(face.state);
  return {
    key: JSON.stringify([stream, face.face]),
    state: face.state,
    stream,
    face: face.face,
    p_fake: face.p_fake,
    box: face.box,
    detail: `${prefix}face ${face.face}${face.reason ? ` · ${REASON_LABELS[face.reason] ?? face.reason}` : ""}`,
    // A score that does not lead to a verdict would be read as one.
    score: face.reason ? "" : percent(scored ? face.p_fake : face.window_fill),
    unit: face.reason ? "" : scored ? "fake" : "ready",
  };
}

/** Shows badges in a list: an element for each, in their order, kept as long as its badge exists. */
export class BadgeList {
  #items = new Map();

  constructor(list) {
    this.list = list;
  }

  show(badges) {
    const current = new Set(badges.map((badge) => badge.key));
    for (const [key, item] of this.#items) {
      if (current.has(key)) continue;
      item.remove();
      this.#items.delete(key);
    }
    badges.forEach((badge, index) => {
      const item = this.#items.get(badge.key) ?? newBadge();
      this.#items.set(badge.key, item);
      update(item, badge);
      if (this.list.children[index] !== item) this.list.insertBefore(item, this.list.children[index] ?? null);
    });
  }
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

function update(item, badge) {
  if (item.dataset.state !== badge.state) {
    item.dataset.state = badge.state;
    item.querySelector("svg").replaceWith(icon(badge.state));
  }
  setText(item.querySelector(".label"), FACE_LABELS[badge.state]);
  setText(item.querySelector(".detail"), badge.detail);
  setText(item.querySelector("b"), badge.score);
  setText(item.querySelector("small"), badge.unit);
}

/** Places each badge of a list at its face's box, with an outline around the face; no other covers the most severe. */
export class FaceBoxes {
  #outlines = new Map();

  constructor(list) {
    this.#list = new BadgeList(list);
    this.#parent = list.parentNode;
  }

  #list;
  #parent;

  show(badges) {
    this.#list.show(badges);
    const current = new Set(badges.map(({ key }) => key));
    for (const [key, outline] of this.#outlines) {
      if (current.has(key)) continue;
      outline.remove();
      this.#outlines.delete(key);
    }
    badges.forEach((badge, index) => {
      const [x, y, w, h] = badge.box.map((share) => 100 * share);
      let outline = this.#outlines.get(badge.key);
      if (!outline) {
        outline = element("div", "outline");
        this.#outlines.set(badge.key, outline);
        this.#parent.append(outline);
      }
      outline.dataset.state = badge.state;
      const item = this.#list.list.children[index];
      const zIndex = String(badges.length - index);
      place(outline, { left: `${x}%`, top: `${y}%`, width: `${w}%`, height: `${h}%`, zIndex });
      place(item, { ...badgePlace({ x, y, w, h }), zIndex });
    });
  }
}

/** Returns the place of a badge: above its box, or below it near the upper edge, not beyond the edges at the sides. */
function badgePlace({ x, y, w, h }) {
  const above = y > 12;
  // Near the right edge the badge ends with the box instead of beginning with it.
  const right = x + w / 2 > 60;
  return {
    left: `${right ? x + w : x}%`,
    top: `${above ? y : y + h}%`,
    transform: `translate(${right ? "-100%" : "0"}, ${above ? "calc(-100% - .25em)" : ".25em"})`,
  };
}

function place(node, style) {
  for (const [name, value] of Object.entries(style)) {
    if (node.style[name] !== value) node.style[name] = value;
  }
}
