// Preview of the overlay: builds its address from a form, and shows the result over the live frame.

import { UnmaskVerdict } from "./overlay.js";
import { Feed, webSocketUrl } from "./shared/feed.js";
import { POSITIONS, THEMES, applyOptions } from "./shared/overlay-options.js";

// The preview is smaller than the canvas of OBS, for which the size is meant.
const CANVAS_WIDTH = 1280;
const DEFAULTS = { position: "bottom-right", scale: "1", theme: "dark" };

const byId = (id) => document.getElementById(id);
const form = byId("options");
const stage = byId("stage");
const verdict = new UnmaskVerdict();
verdict.setAttribute("src", webSocketUrl(location.href));
stage.append(verdict);

for (const [name, values] of [["position", POSITIONS], ["theme", THEMES]]) {
  form.elements[name].append(...values.map((value) => new Option(value.replace("-", " "), value)));
  form.elements[name].value = DEFAULTS[name];
}

/** Returns the options of the form that differ from the defaults. */
function chosen() {
  const options = new URLSearchParams();
  const data = new FormData(form);
  for (const name of ["stream", "face", "position", "scale", "theme", "font", "follow", "delay_ms"]) {
    const value = (data.get(name) ?? "").trim();
    if (value && value !== DEFAULTS[name] && value !== "0") options.set(name, value);
  }
  if (data.getAll("hide").length) options.set("hide", data.getAll("hide").join(","));
  return options;
}

/** Chooses a stream for badges at the faces: those of several streams have no place on one video. */
function chooseStream() {
  const { stream, follow } = form.elements;
  const [all, first] = stream.options;
  all.disabled = follow.checked && Boolean(first);
  if (all.disabled && all.selected) first.selected = true;
}

function update() {
  chooseStream();
  const options = chosen();
  const address = new URL("overlay", location.href);
  address.search = options;
  const token = form.elements.token.value.trim();
  if (token) address.hash = new URLSearchParams({ token });
  byId("address").value = byId("open").href = address.href;
  applyOptions(options, verdict, stage);
  verdict.toggleAttribute("sample", byId("sample").checked);
  const scale = Number(options.get("scale") ?? 1);
  byId("scale-value").value = scale.toFixed(2);
  verdict.style.setProperty("--unmask-size", `${(28 * scale * stage.clientWidth) / CANVAS_WIDTH}px`);
  byId("snippet").value = snippet(options);
  requestFrames(options.get("stream"));
}

/** Returns the HTML that shows the same on a page of another server. */
function snippet(options) {
  const attributes = [["src", webSocketUrl(location.href)]];
  for (const name of ["stream", "face", "hide", "theme", "delay_ms"]) {
    if (options.get(name)) attributes.push([name.replace("_", "-"), options.get(name)]);
  }
  if (options.has("follow")) attributes.push(["follow", ""]);
  const size = Number(options.get("scale") ?? 1);
  if (size !== 1) attributes.push(["style", `--unmask-size: ${28 * size}px`]);
  const text = attributes.map(([name, value]) => (value ? `${name}="${escaped(value)}"` : name)).join(" ");
  const script = escaped(new URL("overlay.js", location.href).href);
  return `<script type="module" src="${script}"></script>\n<unmask-verdict ${text}></unmask-verdict>`;
}

function escaped(value) {
  return value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}

// The live frame behind the badges.
const feed = new Feed(webSocketUrl(location.href));
let requested;

function requestFrames(stream) {
  if (requested !== undefined && requested !== (stream ?? null)) feed.requestPreviews(requested, requested === null ? 0 : null);
  requested = stream ?? null;
  feed.requestPreviews(requested, document.hidden ? 0 : 960, 8);
}

feed.addEventListener("preview", async ({ detail: { header, jpeg } }) => {
  // Without a choice, the first stream is shown.
  const names = feed.current().map(({ stream }) => stream);
  if (header.stream !== (requested ?? names[0])) return;
  const bitmap = await createImageBitmap(jpeg);
  const canvas = byId("frame");
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  stage.style.aspectRatio = `${header.width} / ${header.height}`;
});

feed.addEventListener("change", () => {
  const list = form.elements.stream;
  const names = feed.current().map(({ stream }) => stream);
  const known = [...list.options].slice(1).map(({ value }) => value);
  for (const name of names) {
    if (!known.includes(name)) list.append(new Option(name, name));
  }
  const { value } = list;
  chooseStream();
  if (list.value !== value) update();
});

byId("copy").addEventListener("click", async () => {
  byId("address").select();
  try {
    await navigator.clipboard.writeText(byId("address").value);
    byId("copied").textContent = "Copied.";
  } catch {
    // Without https only this way, or none, is allowed.
    byId("copied").textContent = document.execCommand("copy") ? "Copied." : "Press Ctrl-C to copy the marked address.";
  }
});
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
byId("sample").addEventListener("change", update);
document.addEventListener("visibilitychange", update);
addEventListener("resize", update);
feed.start();
update();
