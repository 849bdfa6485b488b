// Health of a stream: latency percentiles of the last minute, samples without a verdict by cause, reconnects.

import { element, setText } from "../shared/dom.js";

const WINDOW_S = 60;
// A stream that loses more of its recent samples than this is marked.
const MAX_DROPPED = 0.1;

const CAUSE_LABELS = {
  queue: "replaced while the analysis was busy",
  skipped: "skipped to catch up",
  corrupt: "damaged",
  refused: "refused: source too slow or gone",
  repeated: "repeated frames",
};

export class StreamHealth {
  #latencies = [];
  // Counters of the last minute, one entry for each heartbeat.
  #counters = [];
  #list;

  constructor(list) {
    this.#list = list;
  }

  /** Adds the latency of a verdict; `time` is in seconds of this page's monotonic clock. */
  record(verdict, time) {
    this.#latencies.push([time, verdict.latency_ms.total]);
    while (this.#latencies[0][0] < time - WINDOW_S) this.#latencies.shift();
  }

  /** Median and 99th percentile in milliseconds; null without a verdict. */
  latency() {
    const sorted = this.#latencies.map(([, total]) => total).sort((a, b) => a - b);
    if (!sorted.length) return null;
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    return { p50: Math.round(at(0.5)), p99: Math.round(at(0.99)) };
  }

  /** Adds the counters of a heartbeat; `time` as above. */
  recordCounters({ analysed, dropped }, time) {
    this.#counters.push([time, analysed, dropped]);
    while (this.#counters[0][0] < time - WINDOW_S) this.#counters.shift();
  }

  /** Share of the due samples of the last minute that were dropped. */
  get droppedShare() {
    const [first, last] = [this.#counters[0], this.#counters.at(-1)];
    if (!first) return 0;
    const dropped = last[2] - first[2];
    return dropped / Math.max(1, last[1] - first[1] + dropped);
  }

  /** Whether so many samples were dropped that the verdicts are late or missing. */
  get lossy() {
    return this.droppedShare > MAX_DROPPED;
  }

  /** Shows the figures; `counters` are those of the heartbeat, `note` is a reason that concerns the source's clock. */
  render(counters, note) {
    const latency = this.latency();
    const rows = [["latency", "Latency", latency ? `${latency.p50} ms, p99 ${latency.p99} ms` : "–"]];
    if (counters) {
      const causes = Object.entries(counters.dropped_by ?? {}).filter(([, count]) => count > 0);
      const share = counters.dropped / Math.max(1, counters.dropped + counters.analysed);
      rows.push(["analysed", "Analysed", `${counters.analysed} frames`]);
      rows.push(["dropped", "Dropped", counters.dropped ? `${counters.dropped} (${(100 * share).toFixed(1)} %)` : "0"]);
      for (const [cause, count] of causes) rows.push([`cause cause-${cause}`, CAUSE_LABELS[cause] ?? cause, String(count)]);
      rows.push(["reconnects", "Reconnects", String(counters.reconnects)]);
      if (counters.waiting) rows.push(["waiting", "Faces that wait for their turn", String(counters.waiting)]);
    }
    if (note) rows.push(["note", "Note", note]);
    rows.forEach(([name, label, value], index) => this.#row(index, name, label, value));
    while (this.#list.children.length > rows.length) this.#list.lastElementChild.remove();
  }

  #row(index, name, label, value) {
    let row = this.#list.children[index];
    if (!row) {
      row = element("div");
      row.append(element("dt"), element("dd"));
      this.#list.append(row);
    }
    row.className = name;
    setText(row.firstElementChild, label);
    setText(row.lastElementChild, value);
  }
}
