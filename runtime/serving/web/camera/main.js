// Page that sends this computer's camera, or a window of it, and draws the verdicts over its own preview.

import { element, setText } from "../shared/dom.js";
import { Feed, webSocketUrl } from "../shared/feed.js";
import { FACE_LABELS, REASON_LABELS, SCORED, STREAM_LABELS, announcement, percent } from "../shared/labels.js";
import { Sender } from "./sender.js";

const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 25, max: 30 } };
const WINDOW = { frameRate: { ideal: 16, max: 30 } };
const REFUSALS = {
  NotAllowedError: "The browser did not give this page the camera or window. Allow it, and try again.",
  NotFoundError: "No camera was found. Plug one in, and try again.",
  NotReadableError: "The camera is in use by another program. Close it, and try again.",
};

const byId = (id) => document.getElementById(id);
const feed = new Feed(webSocketUrl(location.href));
const key = new URLSearchParams(location.search).get("key") ?? "browser";
let sender = null;
let media = null;
// Choices so far; a permission that comes after another choice, or after Stop, is not used.
let choice = 0;

byId("camera").addEventListener("click", () => watch(() => navigator.mediaDevices.getUserMedia({ video: CAMERA })));
byId("window").addEventListener("click", () => watch(() => navigator.mediaDevices.getDisplayMedia({ video: WINDOW })));
byId("stop").addEventListener("click", () => stop());
addEventListener("pagehide", () => stop());
feed.addEventListener("change", render);
feed.addEventListener("verdict", render);
feed.start();

async function watch(request) {
  stop();
  const current = ++choice;
  if (!navigator.mediaDevices) {
    setText(byId("problem"), "Browsers give cameras and windows only to pages by HTTPS or on this computer "
      + "(http://127.0.0.1). Start unmask with a certificate (--cert, --key), or open this page on its own machine.");
    return;
  }
  try {
    setText(byId("progress"), "Waiting for your permission");
    const stream = await request();
    if (current !== choice) {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    media = stream;
    const [track] = media.getVideoTracks();
    track.addEventListener("ended", () => current === choice && stop("The camera or window was closed."));
    byId("preview").srcObject = media;
    byId("stage").hidden = false;
    byId("stop").hidden = false;
    setText(byId("progress"), "Connecting");
    sender = new Sender();
    sender.addEventListener("end", (event) => current === choice && stop(event.detail));
    await sender.start(track, new URL(`whip/${encodeURIComponent(key)}`, location.href));
    render();
  } catch (error) {
    if (current === choice) stop(REFUSALS[error.name] ?? error.message);
  }
}

function stop(problem = "") {
  choice += 1;
  const ending = sender;
  sender = null;
  ending?.end();
  media?.getTracks().forEach((track) => track.stop());
  media = null;
  byId("preview").srcObject = null;
  byId("stage").hidden = true;
  byId("stop").hidden = true;
  setText(byId("progress"), "");
  setText(byId("problem"), problem);
}

function render() {
  if (!sender?.stream) return;
  const state = feed.current().find(({ stream }) => stream === sender.stream);
  setText(byId("progress"), progress(state));
  // The caption below the video is part of the stage; boxes are relative to the video.
  byId("boxes").style.height = `${byId("preview").clientHeight}px`;
  const faces = state?.state === "live" ? state.faces.filter((face) => face.state !== "stale") : [];
  byId("boxes").replaceChildren(...faces.map(box));
  setText(byId("verdicts"), announcement(faces.map((face) => ({ state: face.state, name: `face ${face.face}` }))));
}

function progress(state) {
  if (!feed.connected) return feed.problem ?? "No connection for verdicts";
  const label = STREAM_LABELS[state?.state] ?? "connecting";
  return `${sender.stream}: ${label}${state?.reason && state.state !== "live" ? ` (${state.reason})` : ""}`;
}

function box(face) {
  const node = element("div", "box");
  const [left, top, width, height] = face.box;
  node.dataset.state = face.state;
  // At the upper edge the label would be cut off.
  node.classList.toggle("inside", top < 0.08);
  Object.assign(node.style, {
    left: `${100 * left}%`,
    top: `${100 * top}%`,
    width: `${100 * width}%`,
    height: `${100 * height}%`,
  });
  const score = SCORED.has(face.state) && face.p_fake !== null ? ` ${percent(face.p_fake)}` : "";
  const reason = REASON_LABELS[face.reason] ?? face.reason;
  node.append(element("span", "", `${FACE_LABELS[face.state]}${reason ? `: ${reason}` : score}`));
  return node;
}
