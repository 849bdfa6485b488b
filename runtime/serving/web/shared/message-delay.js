// Delay of messages between two machines whose clocks do not agree.

// Largest drift between the clocks of both machines; see `runtime/message_delay.py`.
const MAX_DRIFT = 1e-3;

/** Delay of each message of one sender relative to the fastest one, as `runtime/message_delay.py` describes. */
export class MessageDelay {
  #offset = Infinity;
  #sent = -Infinity;
  #received = 0;

  /** Returns the delay in seconds, from the times of sending and receipt in seconds, each by its machine's clock. */
  measure(sent, received) {
    const difference = received - sent;
    const aged = this.#offset + MAX_DRIFT * (received - this.#received);
    // A time before that of the last message shows that the sender's clock was set back.
    this.#offset = sent < this.#sent ? difference : Math.min(aged, difference);
    this.#sent = sent;
    this.#received = received;
    return difference - this.#offset;
  }
}
