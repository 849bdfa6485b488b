"""One due sample of a source: a decoded frame with its times, its segment and the frames before it."""

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
HISTORY_S = 0.26
"""Time before a sample in seconds from which frames are kept: two intervals between samples at 8 Hz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Due sample of a source."""

    image: av.VideoFrame
    """The decoded frame in its native pixel format, upright and with square pixels."""

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

    earlier: tuple[av.VideoFrame, ...] = ()
    """Frames decoded in the last `HISTORY_S`, oldest first, of the same size and upright: from one to the
    next, and from the last one to this frame, are `MIN_GAP_S` to `MAX_GAP_S`."""

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
    """The decoded frames of the last `HISTORY_S` of a connection, upright."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, av.VideoFrame]] = deque()

    def before(self, image: av.VideoFrame, time_s: float) -> tuple[av.VideoFrame, ...]:
        """Return the frames before a decoded frame; see `Frame.earlier`.

        Args:
            image: The decoded frame, upright.
            time_s: Its media time in seconds.

        Returns:
            Frames from the last `HISTORY_S`, oldest first; none before a longer gap or a change of the size.
        """
        chain: deque[av.VideoFrame] = deque()
        later_s = time_s
        for earlier_s, earlier in reversed(self._frames):
            gap_s = later_s - earlier_s
            if gap_s < MIN_GAP_S:
                continue
            if gap_s > MAX_GAP_S or time_s - earlier_s > HISTORY_S or _shape(earlier) != _shape(image):
                break
            chain.appendleft(earlier)
            later_s = earlier_s
        return tuple(chain)

    def add(self, image: av.VideoFrame, time_s: float) -> None:
        """Add a decoded frame; frames that no later one can need are dropped.

        Args:
            image: The decoded frame, upright.
            time_s: Its media time in seconds.
        """
        if self._frames and time_s <= self._frames[-1][0]:
            self._frames.clear()
        self._frames.append((time_s, image))
        while time_s - self._frames[0][0] > HISTORY_S:
            self._frames.popleft()


def _shape(image: av.VideoFrame) -> tuple[int, int, str]:
    return image.width, image.height, image.format.name
