"""Delay of messages between two machines whose clocks do not agree.

    delay = MessageDelay()
    delay_s = delay.measure(message["time"], loop.time())

No I/O, no clock. The pages use the same rules: see `runtime/serving/web/shared/message-delay.js`.
"""

from __future__ import annotations

import math

# Largest drift between two clocks: 20 to 50 ppm for usual quartz clocks, 500 ppm while NTP corrects one. The
# estimated delay of a connection that has become slower therefore decreases by 1 ms per second.
MAX_DRIFT = 1e-3


class MessageDelay:
    """Delay of each message of one sender, relative to the fastest one.

    The difference between the time of receipt and the time of sending is the delay plus the offset between
    the two clocks. The offset is estimated as the smallest difference so far, which rises by `MAX_DRIFT` over
    time, because clocks may drift apart. If a message was sent before the last one by the sender's clock,
    that clock was set back, and the estimate starts again.
    """

    def __init__(self) -> None:
        self._offset_s = math.inf
        self._sent_s = -math.inf
        self._received_s = 0.0

    def measure(self, sent_s: float, received_s: float) -> float:
        """Return the delay of a message in seconds, at least 0.

        Args:
            sent_s: Time of sending in seconds, by any clock of the sender.
            received_s: Time of receipt in seconds, by a clock of the receiver that never steps.
        """
        difference_s = received_s - sent_s
        if sent_s < self._sent_s:
            self._offset_s = difference_s
        else:
            aged_s = self._offset_s + MAX_DRIFT * (received_s - self._received_s)
            self._offset_s = min(aged_s, difference_s)
        self._sent_s, self._received_s = sent_s, received_s
        return difference_s - self._offset_s
