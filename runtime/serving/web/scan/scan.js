// Upload of a video with progress, then its report. All addresses are relative, for proxies with a base path.

const SCANS = "scans/";
const POLL_MS = 1000;

const find = (id) => document.getElementById(id);
const drop = find("drop");
const input = find("file");
const work = find("work");
const bar = find("progress");
const state = find("state");
const problem = find("problem");

// The upload or the scan in progress: a function that ends it.
let cancel = null;
let maxBytes = null;

const gigabytes = (bytes) =>
  bytes >= 1e8 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function showProblem(text) {
  problem.textContent = text;
  work.hidden = true;
  drop.hidden = false;
  input.value = "";
  cancel = null;
}

function showProgress(text, done, total) {
  if (state.textContent !== text) state.textContent = text;
  if (total) {
    bar.max = total;
    bar.value = Math.min(done, total);
  } else {
    bar.removeAttribute("value");
  }
}

/** Sends the file; resolves to the id of the scan. */
function upload(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${SCANS}?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) =>
      showProgress(`Uploading: ${Math.floor((100 * event.loaded) / file.size)} %`, event.loaded, file.size);
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText).id);
      else reject(new Error(request.responseText.trim() || `The server answered ${request.status}.`));
    };
    request.onerror = () => reject(new Error("The upload was interrupted."));
    request.onabort = () => reject(new Error("Cancelled."));
    cancel = () => request.abort();
    request.send(file);
  });
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for the end of a scan; the server cancels it if this page no longer asks. */
async function follow(id) {
  let failures = 0;
  let cancelled = false;
  cancel = () => {
    cancelled = true;
    fetch(SCANS + id, { method: "DELETE", keepalive: true });
  };
  while (!cancelled) {
    try {
      const response = await fetch(SCANS + id, { cache: "no-store" });
      if (!response.ok) throw new Error((await response.text()).trim());
      const job = await response.json();
      failures = 0;
      if (job.state === "done") return;
      if (job.state === "failed") throw Object.assign(new Error(job.error), { final: true });
      if (job.state === "cancelled") throw Object.assign(new Error("Cancelled."), { final: true });
      if (job.state === "waiting") {
        showProgress(job.before ? `Waiting: ${job.before} before this one` : "Waiting");
      } else {
        const total = job.length_s ? ` of ${job.length_s.toFixed(0)}` : "";
        showProgress(`Scanning: ${job.seconds.toFixed(0)}${total} s of video`, job.seconds, job.length_s);
      }
    } catch (error) {
      failures += 1;
      if (error.final || failures > 5) throw error;
    }
    await wait(POLL_MS);
  }
  throw new Error("Cancelled.");
}

async function scan(file) {
  if (cancel) return;
  problem.textContent = "";
  if (file.size === 0) return showProblem(`${file.name}: the file is empty.`);
  if (maxBytes !== null && file.size > maxBytes) {
    const limit = `at most ${gigabytes(maxBytes)} are accepted`;
    return showProblem(`${file.name}: the file has ${gigabytes(file.size)}; ${limit}.`);
  }
  drop.hidden = true;
  work.hidden = false;
  find("name").textContent = file.name;
  showProgress("Uploading", 0, file.size);
  try {
    const id = await upload(file);
    await follow(id);
    cancel = null;
    location.assign(`${SCANS}${id}/report`);
  } catch (error) {
    showProblem(error.message);
  }
}

async function showLimits() {
  const response = await fetch(SCANS, { cache: "no-store" });
  if (response.ok) {
    maxBytes = (await response.json()).max_bytes;
    find("limit").textContent = `Up to ${gigabytes(maxBytes)}.`;
    return;
  }
  drop.hidden = true;
  problem.textContent =
    response.status === 404
      ? "This server takes no videos; start unmask with --scan-uploads."
      : (await response.text()).trim();
}

input.addEventListener("change", () => input.files.length && scan(input.files[0]));
drop.addEventListener("submit", (event) => event.preventDefault());
find("cancel").addEventListener("click", () => cancel?.());
// A file dropped beside the field would replace the page.
for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  const files = event.dataTransfer.files;
  if (files.length > 1) showProblem("Drop one video at a time.");
  else if (files.length) scan(files[0]);
});
window.addEventListener("pagehide", () => cancel?.());
showLimits().catch(() => (problem.textContent = "The server does not respond; reload the page."));
