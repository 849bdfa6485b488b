// Sound and notification on a fake. Both are off until the user turns them on; the choice is kept in this browser.

// One alert per stream within this time: a score at the threshold would otherwise alert again and again.
const PAUSE_MS = 10000;

export class Alerts extends EventTarget {
  #sound;
  #notify;
  #problem;
  #audio = null;
  #lastAt = new Map();

  constructor({ sound, notify, problem }) {
    super();
    this.#sound = sound;
    this.#notify = notify;
    this.#problem = problem;
    sound.addEventListener("click", () => this.#toggleSound());
    notify.addEventListener("click", () => this.#toggleNotifications());
    press(sound, remembered("unmask-sound"));
    press(notify, remembered("unmask-notify") && globalThis.Notification?.permission === "granted");
    // Browsers play a sound only after the user has done something on the page.
    if (pressed(sound)) addEventListener("pointerdown", () => this.#startAudio(), { once: true });
  }

  /** Alerts the user to a fake face. */
  raise({ stream, face, p_fake }) {
    const now = performance.now();
    if (now - (this.#lastAt.get(stream) ?? -Infinity) < PAUSE_MS) return;
    this.#lastAt.set(stream, now);
    if (pressed(this.#sound)) this.#play();
    if (pressed(this.#notify)) this.#show(stream, `Face ${face}, ${Math.round(100 * p_fake)} %`);
  }

  #toggleSound() {
    const on = press(this.#sound, !pressed(this.#sound));
    remember("unmask-sound", on);
    if (on) {
      this.#startAudio();
      this.#play();
    }
  }

  async #toggleNotifications() {
    this.#problem.textContent = "";
    let on = !pressed(this.#notify);
    if (on && !globalThis.isSecureContext) {
      this.#problem.textContent = "Browsers show notifications only for https addresses and for this computer's own.";
      on = false;
    } else if (on && (await globalThis.Notification?.requestPermission()) !== "granted") {
      this.#problem.textContent = "The browser does not allow notifications for this page; see its settings.";
      on = false;
    }
    press(this.#notify, on);
    remember("unmask-notify", on);
  }

  /** Shows a notification; a click on it dispatches `open` with the stream. */
  #show(stream, body) {
    try {
      const notification = new Notification(`Fake: ${stream}`, { body, tag: stream, icon: "icon.svg" });
      notification.onclick = () => {
        focus();
        this.dispatchEvent(new CustomEvent("open", { detail: stream }));
      };
    } catch {
      this.#problem.textContent = "This browser shows no notifications from a page.";
      press(this.#notify, false);
    }
  }

  #startAudio() {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
  }

  /** Plays two tones, made here so that no file is loaded. */
  #play() {
    if (this.#audio?.state === "closed" || !this.#audio) return;
    const start = this.#audio.currentTime;
    [[880, 0], [660, 0.22]].forEach(([frequency, at]) => {
      const tone = this.#audio.createOscillator();
      const volume = this.#audio.createGain();
      tone.frequency.value = frequency;
      volume.gain.setValueAtTime(0, start + at);
      volume.gain.linearRampToValueAtTime(0.25, start + at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.001, start + at + 0.2);
      tone.connect(volume).connect(this.#audio.destination);
      tone.start(start + at);
      tone.stop(start + at + 0.22);
    });
  }
}

/** Returns whether an alert was turned on in this browser before. */
function remembered(name) {
  try {
    return localStorage.getItem(name) === "on";
  } catch {
    // The browser keeps nothing for this page.
    return false;
  }
}

function remember(name, on) {
  try {
    localStorage.setItem(name, on ? "on" : "off");
  } catch {
    // The choice is then made again next time.
  }
}

function pressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
  return on;
}
