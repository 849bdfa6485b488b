// Options of the overlay page, in its address: which attributes of <unmask-verdict> they set, and what they may be.
//
//   ?stream=NAME&face=ID          only this stream, only this face
//   ?position=top-left            top-left, top, top-right, left, center, right, bottom-left, bottom, bottom-right
//   ?scale=1.5                    size, 0.25 to 4
//   ?theme=light                  dark, light, contrast, text
//   ?font=Inter                   a font of this computer
//   ?hide=real,warming            states that are not shown: fake, uncertain, real, warming, none
//   ?follow=1                     badges at the faces, over the whole page
//   ?delay_ms=3000                time by which the video on the screen is late
//   ?--unmask-fake=%23ff00ff      any CSS variable of the element
//   #token=TOKEN                  for a server that needs one

export const POSITIONS = ["top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"];
export const THEMES = ["dark", "light", "contrast", "text"];
const BASE_SIZE = 28;

/** Sets the attributes and the style of an element, and the layout of the box that contains it. */
export function applyOptions(options, verdict, box) {
  const set = (name, value) => (value ? verdict.setAttribute(name, value) : verdict.removeAttribute(name));
  set("stream", options.get("stream"));
  set("face", options.get("face"));
  set("hide", options.get("hide"));
  set("theme", options.get("theme"));
  set("delay-ms", options.get("delay_ms"));
  verdict.toggleAttribute("follow", !["0", "false", null].includes(options.get("follow")));
  const position = POSITIONS.includes(options.get("position")) ? options.get("position") : "bottom-right";
  set("position", position);
  const parts = position.split("-");
  box.dataset.vertical = parts.find((part) => part === "top" || part === "bottom") ?? "center";
  box.dataset.horizontal = parts.find((part) => part === "left" || part === "right") ?? "center";
  box.dataset.follow = String(verdict.hasAttribute("follow"));
  applyStyle(options, verdict);
}

function applyStyle(options, verdict) {
  const scale = Number(options.get("scale") ?? 1);
  verdict.style.cssText = "";
  if (scale >= 0.25 && scale <= 4) verdict.style.setProperty("--unmask-size", `${BASE_SIZE * scale}px`);
  if (options.get("font")) verdict.style.setProperty("--unmask-font", `${JSON.stringify(options.get("font"))}, system-ui, sans-serif`);
  for (const [name, value] of options) {
    if (name.startsWith("--unmask-")) verdict.style.setProperty(name, value);
  }
}
