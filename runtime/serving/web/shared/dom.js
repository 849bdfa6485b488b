// Elements, texts and icons. All text is set as text, never as HTML: stream names come from outside the program.

// Icons that differ without colour: check mark, question mark, warning triangle, clock, crossed circle.
export const ICON_PATHS = {
  real: "M4.5 12.8 9.6 18 19.5 6.5",
  uncertain: "M8 9a4 4 0 1 1 5.6 3.7C12.4 13.3 12 14 12 15.2M12 19v.4",
  fake: "M12 3.5 22 20.5H2ZM12 10v4.8M12 17.4v.3",
  warming: "M12 3.5a8.5 8.5 0 1 0 8.5 8.5M12 7.5V12l3 2",
  none: "M12 3.5a8.5 8.5 0 1 0 .01 0M6 18 18 6",
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
