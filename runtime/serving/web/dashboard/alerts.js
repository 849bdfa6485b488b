// Sound and notification on a fake. Both are off until the user turns them on; the choice is kept in this browser.

// One alert per stream within this time: a score at the threshold would otherwise alert again and again.
const PAUSE_MS = 10000;

export class Alerts {
  #sound;
  #notify;
  #problem;
  #audio = null;
  #lastAt = new Map();

  constructor({ sound, notify, problem }) {
    this.#sound = sound;
    this.#notify = notify;
    this.#problem = problem;
    sound.addEventListener("click", () => this.#toggleSound());
    notify.addEventListener("click", () => this.#toggleNotifications());
    press(sound, localStorage.getItem("unmask-sound") === "on");
    press(notify, localStorage.getItem("unmask-notify") === "on" && globalThis.Notification?.permission === "granted");
    // Browsers play a sound only after the user has done something on the page.
    if (pressed(sound)) addEventListener("pointerdown", () => this.#startAudio(), { once: true });
  }

  /** Alerts the user to a fake face. */
  raise({ stream, face, p_fake }) {
    const now = performance.now();
    if (now - (this.#lastAt.get(stream) ?? -Infinity) < PAUSE_MS) return;
    this.#lastAt.set(stream, now);
    if (pressed(this.#sound)) this.#play();
    if (pressed(this.#notify)) this.#show(`Fake: ${stream}`, `Face ${face}, ${Math.round(100 * p_fake)} %`);
  }

  #toggleSound() {
    const on = press(this.#sound, !pressed(this.#sound));
    localStorage.setItem("unmask-sound", on ? "on" : "off");
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
    localStorage.setItem("unmask-notify", on ? "on" : "off");
  }

  #show(title, body) {
    try {
      new Notification(title, { body, tag: title, icon: "icon.svg" });
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

function pressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
  return on;
}
