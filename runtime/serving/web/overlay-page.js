// Overlay page: one <unmask-verdict> element, configured by the query of the address; see overlay-options.js.

import { UnmaskVerdict } from "./overlay.js";
import { webSocketUrl } from "./shared/feed.js";
import { applyOptions } from "./shared/overlay-options.js";

const verdict = new UnmaskVerdict();
verdict.setAttribute("src", webSocketUrl(location.href));
// After the `#`, which browsers send to no server: there the token gets into no log.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) verdict.setAttribute("token", token);
const main = document.querySelector("main");
applyOptions(new URLSearchParams(location.search), verdict, main);
main.append(verdict);
