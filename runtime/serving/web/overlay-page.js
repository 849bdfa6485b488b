// Overlay page: one <unmask-verdict> element, configured by the query of the address; see overlay-options.js.

import { UnmaskVerdict } from "./overlay.js";
import { webSocketUrl } from "./shared/feed.js";
import { applyOptions } from "./shared/overlay-options.js";

const verdict = new UnmaskVerdict();
verdict.setAttribute("src", webSocketUrl(location.href));
const main = document.querySelector("main");
applyOptions(new URLSearchParams(location.search), verdict, main);
main.append(verdict);
