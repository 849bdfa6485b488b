// The overlay: one <unmask-verdict>, set up by the page's address.
//
//   ?stream=NAME      only this stream           ?position=top-left|top|top-right|left|center|right|
//   ?face=ID          only this face                       bottom-left|bottom|bottom-right (the default)
//   ?scale=1.5        larger or smaller, 0.25 to 4

import { UnmaskVerdict, socketOf } from "./overlay.js";

const options = new URLSearchParams(location.search);
const verdict = new UnmaskVerdict();
verdict.setAttribute("src", socketOf(location.href));
for (const name of ["stream", "face"]) {
  if (options.has(name)) verdict.setAttribute(name, options.get(name));
}

const words = (options.get("position") ?? "bottom-right").split("-");
document.body.dataset.vertical = words.find((word) => word === "top" || word === "bottom") ?? "center";
document.body.dataset.horizontal = words.find((word) => word === "left" || word === "right") ?? "center";

const scale = Number(options.get("scale") ?? 1);
if (scale >= 0.25 && scale <= 4) verdict.style.fontSize = `${28 * scale}px`;

document.body.append(verdict);
