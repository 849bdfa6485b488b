"""Choice of the frame just before a sample, with which temporal residuals compare it."""

from __future__ import annotations

from collections import deque

import av

__all__ = ["PrecedingFrames"]

MIN_GAP_S, MAX_GAP_S = 0.025, 0.07
"""Shortest and longest time between a sample and the frame before it: from 15 frames a second on there is
one. Above 40, it is not the last frame but an earlier one, so that the change is not too small to measure.
"""


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
