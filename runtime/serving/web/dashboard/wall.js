// The wall of all streams: which are shown, in which order, and which one is large.

import { bySeverity } from "../shared/labels.js";
import { StreamCard } from "./stream-card.js";

// Streams do not change their places more often than this.
const SORT_MS = 2000;
const ATTENTION = new Set(["fake", "uncertain", "none"]);

const FILTERS = {
  all: () => true,
  fake: (card) => card.state === "fake",
  attention: (card) => ATTENTION.has(card.state),
  silent: (card) => card.state === "none",
};

export class Wall extends EventTarget {
  /** Name of the enlarged stream; null if none is. */
  large = null;
  #container;
  #cards = new Map();
  #filter = { text: "", show: "all", sort: "added" };
  #sortedAt = -Infinity;
  #order = [];

  constructor(container) {
    super();
    this.#container = container;
  }

  /** Number of streams. */
  get size() {
    return this.#cards.size;
  }

  /** Names of the streams that pass the filter, in the order shown. */
  get shown() {
    return this.#order.filter((name) => this.#passes(this.#cards.get(name)));
  }

  card(stream) {
    if (!this.#cards.has(stream)) {
      this.#cards.set(stream, new StreamCard(stream, () => this.toggle(stream)));
      this.#sortedAt = -Infinity;
    }
    return this.#cards.get(stream);
  }

  /** Sets the filter: `text` in the name, `show` and `sort` as in the page's lists. */
  setFilter(filter) {
    this.#filter = { ...this.#filter, ...filter };
    this.#sortedAt = -Infinity;
    this.dispatchEvent(new Event("change"));
  }

  /** Enlarges a stream, or shows all of them if it is large already. */
  toggle(stream) {
    // A single stream always fills the page.
    this.open(this.large === stream || this.#cards.size < 2 ? null : stream);
  }

  /** Enlarges a stream; shows all with null. */
  open(stream) {
    const previous = this.large;
    this.large = stream;
    this.dispatchEvent(new Event("change"));
    const focused = this.#cards.get(stream ?? previous);
    focused?.button.focus({ preventScroll: stream !== null });
    if (stream === null) focused?.node.scrollIntoView({ block: "nearest" });
  }

  /** Enlarges the next stream after the large one, or the previous one with -1. */
  step(by) {
    const names = this.shown;
    if (this.large === null || names.length < 2) return;
    this.open(names[(names.indexOf(this.large) + by + names.length) % names.length]);
  }

  /** Shows the current streams, as `Feed.current` returns them. */
  render(streams, { thresholds, health }) {
    const names = new Set(streams.map(({ stream }) => stream));
    for (const [name, { node }] of this.#cards) {
      if (names.has(name)) continue;
      node.remove();
      this.#cards.delete(name);
      this.#sortedAt = -Infinity;
    }
    // After a lost connection, when there is no stream, the same one is enlarged again.
    if (this.large !== null && names.size && !names.has(this.large)) this.large = null;
    for (const stream of streams) {
      const large = this.large === stream.stream || streams.length === 1;
      this.card(stream.stream).render(stream, { thresholds: stream.thresholds ?? thresholds, counters: health.get(stream.stream), large });
    }
    this.#arrange([...names]);
  }

  #passes(card) {
    if (this.large !== null) return FILTERS.all();
    return FILTERS[this.#filter.show](card) && card.stream.toLowerCase().includes(this.#filter.text.toLowerCase());
  }

  #arrange(given) {
    const now = performance.now();
    if (now - this.#sortedAt > SORT_MS) {
      this.#sortedAt = now;
      const cards = given.map((name) => this.#cards.get(name));
      if (this.#filter.sort === "name") cards.sort((a, b) => a.stream.localeCompare(b.stream, undefined, { numeric: true }));
      if (this.#filter.sort === "severity") cards.sort(bySeverity);
      this.#order = cards.map(({ stream }) => stream);
      cards.forEach(({ node }, index) => {
        if (this.#container.children[index] !== node) this.#container.insertBefore(node, this.#container.children[index] ?? null);
      });
    }
    for (const card of this.#cards.values()) {
      card.node.hidden = this.large === null ? !this.#passes(card) : card.stream !== this.large;
    }
    const count = this.#cards.size;
    const large = this.large !== null || count === 1;
    this.#container.dataset.layout = large ? "large" : count <= 4 ? "few" : count <= 9 ? "some" : "dense";
  }
}
