"""Delay of messages between two machines whose clocks do not agree.

    delay = MessageDelay()
    delay_s = delay.measure(message["time"], loop.time())

No I/O, no clock. The pages use the same rules: see `MessageDelay` in `runtime/serving/web/overlay.js`.
"""

from __future__ import annotations

import math

# Drift between two clocks that is followed: 20 to 50 ppm of a usual quartz, 500 ppm while NTP corrects it.
# A constant delay is therefore forgotten at 1 ms a second.
MAX_DRIFT = 1e-3


class MessageDelay:
    """Delay of each message of one sender, relative to the fastest one.

    The difference between the time of receipt and the time of sending is the delay plus the offset between
    the two clocks. The smallest difference so far is taken for the offset. This estimate ages: it may rise
    by `MAX_DRIFT`, so that clocks may drift apart. A time of sending before that of the last message, which
    no delay can cause, shows that the sender's clock was set back: the estimate starts again.
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
