"""One due sample of a source: a decoded frame with its times, its segment and the frame before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av

__all__ = ["Frame", "PrecedingFrames"]

MIN_GAP_S, MAX_GAP_S = 0.025, 0.07
"""Shortest and longest time between a sample and the frame before it: from 15 frames a second on there is
one. Above 40, it is not the last frame but an earlier one, so that the change is not too small to measure.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Due sample of a source."""

    image: av.VideoFrame
    """The decoded frame in its native pixel format, upright."""

    pts: int
    """Presentation time in units of `time_base`."""

    time_base: Fraction
    """Seconds per unit of `pts`."""

    captured: float | None
    """Estimated capture time of a live frame in Unix seconds; None for a finite source."""

    decode_ms: float
    """Time spent decoding the frame's packet, in milliseconds."""

    connection: int
    """Number of the connection to the source that the frame came from, from 1."""

    segment: int
    """Number of the run of samples that may share a window; see `streams.input.continuity`."""

    previous: av.VideoFrame | None = None
    """The frame decoded shortly before this one, of the same size and upright; None if there is none."""

    late: bool = False
    """Whether the analysis of a live source is behind: the frame has waited for it; see `FrameQueue.late`."""

    @property
    def pts_s(self) -> float:
        """Return the presentation time in seconds."""
        # The same number as float(self.pts * self.time_base), without the cost of a new fraction.
        return self.pts * self.time_base.numerator / self.time_base.denominator

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.image.height


class PrecedingFrames:
    """The newest decoded frames of a connection, as few as needed."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, av.VideoFrame]] = deque()

    def before(self, image: av.VideoFrame, time_s: float) -> av.VideoFrame | None:
        """Return the newest frame that is at least `MIN_GAP_S` older than a decoded frame.

        Args:
            image: The decoded frame.
            time_s: Its media time in seconds.

        Returns:
            The earlier frame; None if there is none, or if it is too old, or of another size or rotation.
        """
        for earlier_s, earlier in reversed(self._frames):
            gap_s = time_s - earlier_s
            if gap_s >= MIN_GAP_S:
                return earlier if gap_s <= MAX_GAP_S and _shape(earlier) == _shape(image) else None
        return None

    def add(self, image: av.VideoFrame, time_s: float) -> None:
        """Add a decoded frame; frames that no later one can need are dropped.

        Args:
            image: The decoded frame.
            time_s: Its media time in seconds.
        """
        if self._frames and time_s <= self._frames[-1][0]:
            self._frames.clear()
        self._frames.append((time_s, image))
        while len(self._frames) > 1 and time_s - self._frames[1][0] >= MIN_GAP_S:
            self._frames.popleft()


def _shape(image: av.VideoFrame) -> tuple[int, int, str, int]:
    return image.width, image.height, image.format.name, image.rotation % 360
