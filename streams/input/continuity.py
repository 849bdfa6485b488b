"""Continuity of one stream: which samples follow each other, as a segment number that each frame carries.

No I/O and no clock: times and frame properties are passed in, a number is returned.

    continuity = Continuity(sample_hz=8.0)
    segment = continuity.deliver(frame.pts_s, origin)
    if segment != last_segment:
        window.clear()

The samples of one segment may share a window. A consumer starts again when the number differs from that of
its last frame. A number rather than a flag on the first frame of a segment, because that frame may be
dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.input.capture.display_transform import FrameGeometry

__all__ = ["MAX_BRIDGED_STEP", "MAX_STEP", "Chain", "Continuity", "Origin", "Spacing"]

MAX_STEP = 1.75
"""Longest interval between two samples, in nominal intervals.

The lowest frame rate follows from it: `sample_hz / MAX_STEP`, which is 4.6 frames per second at 8 Hz. It is
above 1.6, the step of a camera with 5 frames per second, so that such a camera may jitter by 18 ms.
"""

MAX_BRIDGED_STEP = MAX_STEP + 1
"""Longest interval that is bridged, in nominal intervals: one sample is missing, whatever the cause."""

_TOLERANCE_S = 1e-6  # absorbs rounding of times


@dataclass(frozen=True, slots=True)
class Spacing:
    """Limits on the interval between two samples of one stream.

    Args:
        sample_hz: Nominal rate in samples per second of media time.

    Raises:
        ValueError: `sample_hz` is not positive.
    """

    sample_hz: float

    def __post_init__(self) -> None:
        if not self.sample_hz > 0:
            raise ValueError(f"sample_hz must be positive, not {self.sample_hz}")

    @property
    def min_fps(self) -> float:
        """Return the lowest frame rate at which samples follow each other."""
        return self.sample_hz / MAX_STEP

    def is_jump_back(self, interval_s: float) -> bool:
        """Return whether media time has jumped back; by less than one sample, the frame is a duplicate."""
        return interval_s <= -1 / self.sample_hz + _TOLERANCE_S

    def is_regular(self, interval_s: float) -> bool:
        """Return whether no sample is missing within an interval."""
        return interval_s <= MAX_STEP / self.sample_hz + _TOLERANCE_S

    def is_bridgeable(self, interval_s: float) -> bool:
        """Return whether at most one sample is missing within an interval."""
        return interval_s <= MAX_BRIDGED_STEP / self.sample_hz + _TOLERANCE_S


class Chain:
    """Sequence of sample times; each new time either follows the last one or breaks the sequence.

    An interval with one missing sample is bridged, unless the interval before it was bridged too. Otherwise
    a stream at half the sample rate would be scored as if it had the full one.

    Args:
        spacing: Limits on the intervals.
    """

    def __init__(self, spacing: Spacing) -> None:
        self._spacing = spacing
        self._state: tuple[float | None, bool] = None, False
        self._before: tuple[float | None, bool] = self._state

    @property
    def bridged(self) -> bool:
        """Return whether the newest interval was bridged, so that the next one must be regular."""
        return self._state[1]

    def append(self, time_s: float, *, restart: bool = False) -> bool:
        """Append a sample time.

        Args:
            time_s: Media time in seconds.
            restart: Whether the sample does not follow the last one, whatever its time.

        Returns:
            Whether the sample follows the last one.
        """
        self._before = self._state
        last_s, bridged = self._state
        interval_s = 0.0 if last_s is None else time_s - last_s
        regular = self._spacing.is_regular(interval_s)
        follows = (
            not restart
            and interval_s > 0
            and (regular or (not bridged and self._spacing.is_bridgeable(interval_s)))
        )
        self._state = time_s, follows and not regular
        return follows

    def undo(self) -> None:
        """Remove the newest sample; only one can be removed."""
        self._state = self._before


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Properties of a decoded frame that are the same throughout a segment.

    Args:
        connection: Number of the connection to the source.
        timeline: Number of times that media time has jumped back within the connection.
        recoveries: Number of times that the source was too slow and recovered, within the connection.
        geometry: Geometry of the frame as it was decoded.
    """

    connection: int
    timeline: int
    recoveries: int
    geometry: FrameGeometry


class Continuity:
    """Segment numbers of one stream's samples, in the order in which its consumer takes them.

    A new segment begins when a property in `Origin` changes, when media time does not advance, and after an
    interval that may not be bridged. A sample that is missing, for whatever cause (queue, skipped packets,
    damaged data, a gap in the source, refusal), lengthens the interval between its neighbours.

    Args:
        sample_hz: Nominal rate in samples per second of media time.
    """

    def __init__(self, sample_hz: float) -> None:
        self._chain = Chain(Spacing(sample_hz))
        self._origin: Origin | None = None
        self._segment = 0
        self._began = False

    def deliver(self, time_s: float, origin: Origin) -> int:
        """Return the segment of the next sample.

        Args:
            time_s: Media time in seconds.
            origin: Properties of its frame.

        Returns:
            A number from 1, never less than the one before.
        """
        self._began = not self._chain.append(time_s, restart=origin != self._origin)
        self._segment += self._began
        self._origin = origin
        return self._segment

    def refuse(self) -> None:
        """Treat the newest sample as lost: its consumer did not use it.

        If the sample began a segment, that segment begins with the next sample.
        """
        if not self._began:
            self._chain.undo()
