// Overlay page: one <unmask-verdict> element, configured by the query of the address.
//
//   ?stream=NAME      only this stream           ?position=top-left|top|top-right|left|center|right|
//   ?face=ID          only this face                       bottom-left|bottom|bottom-right (the default)
//   ?scale=1.5        size, 0.25 to 4

import { UnmaskVerdict } from "./overlay.js";
import { webSocketUrl } from "./shared/feed.js";

const options = new URLSearchParams(location.search);
const verdict = new UnmaskVerdict();
verdict.setAttribute("src", webSocketUrl(location.href));
for (const name of ["stream", "face"]) {
  if (options.has(name)) verdict.setAttribute(name, options.get(name));
}

const position = (options.get("position") ?? "bottom-right").split("-");
document.body.dataset.vertical = position.find((part) => part === "top" || part === "bottom") ?? "center";
document.body.dataset.horizontal = position.find((part) => part === "left" || part === "right") ?? "center";

const scale = Number(options.get("scale") ?? 1);
if (scale >= 0.25 && scale <= 4) verdict.style.fontSize = `${28 * scale}px`;

document.body.append(verdict);
