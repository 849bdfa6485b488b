"""Repair of media times: presentation times of decoded frames, and a check of a live source's clock.

No I/O and no clock.
"""

from __future__ import annotations

import statistics
from collections import deque

__all__ = ["ClockCheck", "PresentationTimes"]


_MAX_DELAY = 64  # packets; decoders return a frame within 16, and within one more for each thread


class PresentationTimes:
    """Presentation times of decoded frames, also where time stamps are in decoding order or missing.

    Some containers store no presentation times: AVI has decoding times only, a raw stream has none at all. A
    frame then has the time stamp of another frame, or none, although the decoder returns frames in the right
    order. So once a time stamp has stepped back, each frame gets the smallest time stamp among the packets
    that have no frame yet. Without such a packet, the frame follows the last one by its duration.

    For a codec that reorders frames, both give the same result at first, so there it is done from the start:
    until the packets' time stamps step back, which shows that they are presentation times.

    FFmpeg's best-effort time stamps, which PyAV does not expose, serve the same purpose, but fail where the
    decoding times that FFmpeg guesses step back too, as for MPEG-4 in Matroska.

    Args:
        start: Time of the first frame if there is no time stamp; None to leave such frames without a time.
        reorders: Whether the codec stores frames in another order than that of presentation.
    """

    def __init__(self, start: int | None, *, reorders: bool = False) -> None:
        self._next = start
        self._unknown = reorders
        self._fed_pts: int | None = None
        self._last_pts: int | None = None
        self._sorts = False
        self._packets = 0
        # Time stamp and number of each packet that has no frame yet.
        self._pending: list[tuple[int, int]] = []

    def feed(self, pts: int | None) -> None:
        """Record the time stamp of the next packet to decode.

        Args:
            pts: Presentation time stamp, or the decoding time stamp if it is missing; None without either.
        """
        self._packets += 1
        self._pending = [entry for entry in self._pending if entry[1] > self._packets - _MAX_DELAY]
        if pts is not None:
            steps_back = self._fed_pts is not None and pts < self._fed_pts
            self._unknown = self._unknown and not steps_back and self._packets <= _MAX_DELAY
            self._fed_pts = pts
            self._pending.append((pts, self._packets))

    def present(self, pts: int | None, *, duration: int) -> int | None:
        """Return the presentation time of the next frame, in the order in which the decoder returns them.

        Args:
            pts: Time stamp of the frame.
            duration: Duration of the frame, in the same unit.

        Returns:
            The time; None if there is nothing to derive it from.
        """
        if pts is not None:
            self._sorts = self._sorts or (self._last_pts is not None and pts < self._last_pts)
            self._last_pts = pts
        time = pts
        if self._pending and (self._sorts or self._unknown or pts is None):
            time = min(self._pending)[0]
        # All equal ones, because the slices of one frame can come in several packets.
        self._pending = [entry for entry in self._pending if entry[0] != time]
        if time is None:
            time = self._next
        if time is not None:
            self._next = time + duration
        return time


_WINDOW_S = 1.0
_WINDOW_PACKETS = 3
# Congestion, bursts and a slow reader change the rate of arrival too, but neither by more than a factor of
# four for three seconds, nor by more than a quarter for twenty.
_GROSS_WINDOWS, _GROSS_RATIO = 3, 4.0
_SLIGHT_WINDOWS, _SLIGHT_RATIO = 20, 1.25
_CONSTANT_RATIO = 0.01


class ClockCheck:
    """Comparison of a live source's clock with the arrival of its packets.

    The source must send in real time. Its clock is wrong if, compared with arrival, it runs at more than 4
    times or less than 1/4 of the rate in three consecutive seconds; or always at more than 1.25 times or
    always at less than 0.8 times the rate in twenty consecutive seconds.
    """

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._packets = 0
        self._ratios: deque[float] = deque(maxlen=_SLIGHT_WINDOWS)

    def observe(self, arrival_s: float, pts_s: float) -> str | None:
        """Check one packet.

        Args:
            arrival_s: Arrival time in seconds of the reader's clock.
            pts_s: Media time in seconds.

        Returns:
            The fault of the clock, in a few words; None if there is none, or it is not known yet.
        """
        if self._start is None:
            self._start = arrival_s, pts_s
            return None
        self._packets += 1
        elapsed_s = arrival_s - self._start[0]
        if elapsed_s < _WINDOW_S or self._packets < _WINDOW_PACKETS:
            return None
        self._ratios.append((pts_s - self._start[1]) / elapsed_s)
        self._start, self._packets = (arrival_s, pts_s), 0
        return self._fault()

    def _fault(self) -> str | None:
        ratios = list(self._ratios)
        gross = ratios[-_GROSS_WINDOWS:]
        if len(gross) == _GROSS_WINDOWS and all(not 1 / _GROSS_RATIO <= r <= _GROSS_RATIO for r in gross):
            if max(map(abs, gross)) < _CONSTANT_RATIO:
                return "the source's time stamps do not advance"
            if min(gross) < 1 / _GROSS_RATIO and max(gross) > _GROSS_RATIO:
                return "the source's time stamps jump back and forth"
            return f"the source's clock runs at {statistics.median(gross):.2g} times real time"
        fast, slow = min(ratios) > _SLIGHT_RATIO, max(ratios) < 1 / _SLIGHT_RATIO
        if len(ratios) == _SLIGHT_WINDOWS and (fast or slow):
            return f"the source's clock runs at {statistics.median(ratios):.2g} times real time"
        return None
