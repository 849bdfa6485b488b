"""Media times that can be relied on: presentation times of decoded frames, and a check of a source's clock.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ClockCheck", "PresentationTimes"]


class PresentationTimes:
    """Presentation times of decoded frames, from whichever of their time stamps advance.

    Some containers store no presentation times: AVI has only the order of decoding, a raw stream has nothing.
    A frame then has the presentation time of another frame, or none. The rule is that of FFmpeg's best-effort
    time stamps, which PyAV does not expose: the kind of time stamp that has stepped back less often is used.
    Without a usable one, the frame follows the last frame by its duration.

    Args:
        start: Time of the first frame if it has no time stamp; None to leave such frames without a time.

    Source: FFmpeg, `guess_correct_pts` in libavcodec/decode.c.
    """

    def __init__(self, start: int | None) -> None:
        self._next = start
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = 0
        self._faulty_dts = 0

    def present(self, *, pts: int | None, dts: int | None, duration: int) -> int | None:
        """Return the presentation time of the next frame, in the order in which the decoder returns them.

        Args:
            pts: Presentation time stamp of the frame.
            dts: Decoding time stamp of the packet that completed it.
            duration: Duration of the frame, in the same unit.

        Returns:
            The time; None if there is nothing to derive it from.
        """
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        reliable = self._faulty_pts <= self._faulty_dts or self._last_dts is None
        if pts is not None and reliable:
            time: int | None = pts
        else:
            time = self._next if dts is None else dts
        if time is not None:
            self._next = time + duration
        return time


_WINDOW_S = 1.0
_WINDOW_PACKETS = 3
_WINDOWS = 3
# Congestion, bursts and a slow reader change the rate of arrival too, but not by this much for three seconds.
_MAX_RATIO = 4.0
_CONSTANT = 0.01

_Fault = Literal["constant", "fast", "slow"]


class ClockCheck:
    """Comparison of a live source's clock with the arrival of its packets.

    The source must send in real time. A clock is wrong if it runs more than four times too fast or too slow,
    or not at all, in three consecutive seconds.
    """

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._packets = 0
        self._faults: list[_Fault] = []
        self._ratio = 1.0

    def observe(self, arrival_s: float, pts_s: float) -> str | None:
        """Check one packet.

        Args:
            arrival_s: Arrival time in seconds of the reader's clock.
            pts_s: Media time in seconds.

        Returns:
            What is wrong with the clock, in a few words; None if nothing is, or it is not known yet.
        """
        if self._start is None:
            self._start = arrival_s, pts_s
            return None
        self._packets += 1
        elapsed_s = arrival_s - self._start[0]
        if elapsed_s < _WINDOW_S or self._packets < _WINDOW_PACKETS:
            return None
        self._ratio = (pts_s - self._start[1]) / elapsed_s
        self._start, self._packets = (arrival_s, pts_s), 0
        fault = self._fault()
        if fault is None or (self._faults and self._faults[-1] != fault):
            self._faults.clear()
        if fault is not None:
            self._faults.append(fault)
        return self._reason(fault) if fault is not None and len(self._faults) >= _WINDOWS else None

    def _fault(self) -> _Fault | None:
        if abs(self._ratio) < _CONSTANT:
            return "constant"
        if self._ratio > _MAX_RATIO:
            return "fast"
        return "slow" if self._ratio < 1 / _MAX_RATIO else None

    def _reason(self, fault: _Fault) -> str:
        if fault == "constant":
            return "the source's time stamps do not advance"
        return f"the source's clock runs at {self._ratio:.2g} times real time"
