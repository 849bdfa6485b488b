// Which frames the dashboard requests: no larger and no more often than they are shown, and fewer on a slow connection.

// Frames per second and stream, by the number of streams.
const RATES = [[1, 8], [4, 6], [9, 4], [16, 3], [Infinity, 2]];
// Frames delay the verdicts behind them on a slow connection. From this delay on, small ones are requested.
const SLOW_DELAY_S = 0.5;
// Time for which it stays so after the last late message.
const SLOW_MS = 15000;
const NOTHING = { width: 0, rate: 0 };

export class FrameRequests {
  #feed;
  #large = null;
  #slowUntil = -Infinity;

  constructor(feed) {
    this.#feed = feed;
  }

  /** Requests the frames for `count` streams, of which `large` fills the page, if any; `pixels` is the page's width. */
  update({ count, large, pixels, hidden }) {
    const wanted = this.decide({ count, large, pixels, hidden, delay: this.#feed.delay, now: performance.now() });
    if (this.#large !== null && this.#large !== large) this.#feed.requestPreviews(this.#large, null);
    this.#large = large;
    this.#feed.requestPreviews(null, wanted.all.width, wanted.all.rate);
    if (large !== null) this.#feed.requestPreviews(large, wanted.large.width, wanted.large.rate);
  }

  /** Returns width and rate for `all` streams and for the `large` one; `delay` is that of the messages in seconds. */
  decide({ count, large, pixels, hidden, delay, now }) {
    if (hidden || !count) return { all: NOTHING, large: NOTHING };
    if (delay > SLOW_DELAY_S) this.#slowUntil = now + SLOW_MS;
    const slow = now < this.#slowUntil;
    const full = slow ? { width: 320, rate: 2 } : { width: pixels >= 1200 ? 960 : 640, rate: RATES[0][1] };
    if (large !== null) return { all: NOTHING, large: full };
    if (count === 1) return { all: full, large: NOTHING };
    const width = slow ? 160 : count <= 4 && pixels > 700 ? 640 : 320;
    const rate = slow ? 1 : RATES.find(([most]) => count <= most)[1];
    return { all: { width, rate }, large: NOTHING };
  }
}
