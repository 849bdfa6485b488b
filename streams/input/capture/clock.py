"""Capture times of live frames, and the choice of packets to skip after a delay. No I/O and no clock."""

from __future__ import annotations

import statistics
from collections import deque

__all__ = ["CaptureClock", "CatchUp", "Pace"]

_DRIFT = 1e-4  # s/s; two quartz clocks differ by less than this
_JUMP_S = 1.0  # reordered packets step back by less than this
_INTERVALS_KEPT = 15


class CaptureClock:
    """Mapping from a live source's media time to the reader's clock.

    The offset is the smallest difference between arrival and media time since the connection was opened. A
    reader or network that falls behind therefore shows as latency. The offset rises in two cases: by up to
    100 parts per million, because the latency of a camera with a slow clock would otherwise seem to grow; and
    by the amount by which the source's clock was set back.

    How far it was set back is measured on decoded frames, which come in presentation order. Packets come in
    decoding order, in which media time steps back for reordered frames too.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._arrival_s = 0.0
        self._pts_s = 0.0
        self._presented_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS_KEPT)

    def observe(self, arrival_s: float, pts_s: float) -> None:
        """Update the offset with one packet.

        Args:
            arrival_s: Arrival time in seconds of the reader's clock.
            pts_s: Media time in seconds.
        """
        offset_s = arrival_s - pts_s
        if self._offset_s is not None and pts_s > self._pts_s - _JUMP_S:
            offset_s = min(offset_s, self._offset_s + _DRIFT * (arrival_s - self._arrival_s))
        self._offset_s, self._arrival_s, self._pts_s = offset_s, arrival_s, pts_s

    def present(self, pts_s: float) -> float | None:
        """Return the capture time of the next decoded frame. Must be called for every frame.

        Args:
            pts_s: Media time in seconds.

        Returns:
            Seconds of the reader's clock; None before any packet.
        """
        last_s, self._presented_s = self._presented_s, pts_s
        if self._offset_s is None:
            return None
        if last_s is not None and pts_s > last_s:
            self._intervals_s.append(pts_s - last_s)
        elif last_s is not None and pts_s < last_s:
            # Without the correction, the frame would have come one interval after the last one.
            interval_s = statistics.median(self._intervals_s) if self._intervals_s else 0.0
            # If earlier packets have already raised the offset, the next packet lowers it again.
            self._offset_s += last_s - pts_s + interval_s
        return min(self._offset_s + pts_s, self._arrival_s)

    def captured_s(self, pts_s: float) -> float | None:
        """Return the capture time of a packet in seconds of the reader's clock; None before any packet."""
        return None if self._offset_s is None else self._offset_s + pts_s


class CatchUp:
    """Choice of the packets to decode when decoding is slower than the camera.

    Every frame depends on the frames before it, so the only way to catch up is to skip all packets up to a
    keyframe with little lag.

    Args:
        limit_s: Lag beyond which packets are skipped.
        patience_s: Longest search for a keyframe with little lag. After that the next keyframe is decoded and
            its lag accepted, because the delay is in the network and skipping does not reduce it.
    """

    def __init__(self, *, limit_s: float = 1.0, patience_s: float = 3.0) -> None:
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._accepted_lag_s = 0.0
        self._skipping_since_s: float | None = None

    def accepts(self, *, lag_s: float, keyframe: bool, now_s: float) -> bool:
        """Decide on one packet.

        Args:
            lag_s: Delay of the packet, at least 0.
            keyframe: Whether decoding can start with it.
            now_s: Current time in seconds of the reader's clock.

        Returns:
            True to decode the packet, False to skip it.
        """
        if self._skipping_since_s is None:
            self._accepted_lag_s = min(self._accepted_lag_s, lag_s)
            if lag_s <= self._accepted_lag_s + self._limit_s:
                return True
            self._skipping_since_s = now_s
        waited_s = now_s - self._skipping_since_s
        fresh = lag_s <= self._accepted_lag_s + self._limit_s / 2
        # A stream with gradual refresh has no keyframes; after twice the patience decoding starts anywhere.
        if (keyframe and (fresh or waited_s > self._patience_s)) or waited_s > 2 * self._patience_s:
            self._skipping_since_s = None
            if not fresh:
                self._accepted_lag_s = lag_s
            return True
        return False


class Pace:
    """Schedule that holds a writer that is faster than real time, such as a conversion, to real time.

    Args:
        allowance_s: How far the media time may run ahead: a live writer has been running while this program
            was loading, and what it wrote in that time is read at once.
    """

    def __init__(self, *, allowance_s: float = 5.0) -> None:
        self._allowance_s = allowance_s
        self._start: tuple[float, float] | None = None
        self._pts_s = 0.0

    def delay_s(self, now_s: float, pts_s: float) -> float:
        """Return the seconds to wait before a packet is used, at least 0.

        Args:
            now_s: Current time in seconds of the reader's clock.
            pts_s: Media time of the packet in seconds.
        """
        jump = abs(pts_s - self._pts_s) > _JUMP_S
        self._pts_s = pts_s
        if self._start is None or jump:
            self._start = now_s, pts_s
        start_s, start_pts_s = self._start
        return max(0.0, (pts_s - start_pts_s) - (now_s - start_s) - self._allowance_s)
