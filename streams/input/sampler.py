"""Choice of the frames that are analysed: one in every 1 / `sample_hz` seconds of media time.

Pure: it decides by the times it is given and has no clock.

    sampler = Sampler(8.0)
    for frame in decoded:
        if sample := sampler.offer(frame.pts_s):
            analyse(frame, restart=sample.gap)
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

__all__ = ["MAX_STEP", "MIN_STEP", "Sample", "Sampler"]

MIN_STEP = 0.7
"""Shortest interval between two samples that the model accepts, in nominal intervals."""

MAX_STEP = 1.5
"""Longest interval between two samples that the model accepts, in nominal intervals; more is a gap."""

_TOLERANCE = 1e-6  # seconds; absorbs rounding of times
# Odd, so that the median of two alternating intervals is one of them and not their mean.
_INTERVALS_KEPT = 15
_INTERVALS_NEEDED = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """Result for a frame that is due."""

    gap: bool
    """Whether there was no previous sample, or the interval since it is longer than the model accepts."""


class Sampler:
    """Sampler on a time grid whose average rate is `sample_hz` at any frame rate that allows it.

    The frame nearest to each grid point is taken, as long as intervals stay within 0.7 to 1.5 of nominal. Of
    a 10 fps source sampled at 8 Hz every frame is taken, because leaving one out would cause a gap.

    Args:
        sample_hz: Nominal rate in samples per second of media time.
        fps: Frame rate of the source if known; it is measured from the offered times in any case.

    Raises:
        ValueError: `sample_hz` is not positive.
    """

    def __init__(self, sample_hz: float, *, fps: float | None = None) -> None:
        if not sample_hz > 0:
            raise ValueError(f"sample_hz must be positive, not {sample_hz}")
        self.sample_hz = sample_hz
        self._step_s = 1 / sample_hz
        self._interval_s = 1 / fps if fps else 0.0
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS_KEPT)
        self._frame_s: float | None = None
        self._sample_s: float | None = None
        self._due_s = 0.0

    @property
    def fps(self) -> float | None:
        """Return the measured frame rate, before that the given one; None if neither is known."""
        return 1 / self._interval_s if self._interval_s else None

    @property
    def too_slow(self) -> bool:
        """Return whether the measured frame rate is too low for the model."""
        measured = len(self._intervals_s) >= _INTERVALS_NEEDED
        return measured and self._interval_s > MAX_STEP * self._step_s + _TOLERANCE

    def offer(self, pts_s: float) -> Sample | None:
        """Decide on one decoded frame.

        Args:
            pts_s: Presentation time in seconds. Every decoded frame must be offered, in order.

        Returns:
            A sample if the frame is due, else None.
        """
        if self._frame_s is None or self._sample_s is None or pts_s < self._frame_s - _TOLERANCE:
            # First frame, or the source jumped back: there is no interval to compare.
            return self._take(pts_s, gap=True, restart=True)
        interval_s = pts_s - self._frame_s
        if interval_s <= _TOLERANCE:
            return None  # a repeated frame
        self._frame_s = pts_s
        self._intervals_s.append(interval_s)
        if len(self._intervals_s) >= _INTERVALS_NEEDED or not self._interval_s:
            self._interval_s = statistics.median(self._intervals_s)

        elapsed_s = pts_s - self._sample_s
        if elapsed_s > MAX_STEP * self._step_s + _TOLERANCE:
            return self._take(pts_s, gap=True, restart=True)
        if elapsed_s < MIN_STEP * self._step_s - _TOLERANCE:
            return None
        nearest = pts_s >= self._due_s - self._interval_s / 2 - _TOLERANCE
        last_chance = elapsed_s + self._interval_s > MAX_STEP * self._step_s + _TOLERANCE
        return self._take(pts_s, gap=False, restart=False) if nearest or last_chance else None

    def _take(self, pts_s: float, *, gap: bool, restart: bool) -> Sample:
        self._frame_s = self._sample_s = pts_s
        next_s = pts_s + self._step_s
        if not restart:
            # The grid continues, but stays within half a frame interval of the samples taken. Otherwise it
            # would run away from a frame rate that cannot follow it, and be caught up later at a wrong rate.
            slack_s = self._interval_s / 2
            next_s = min(max(self._due_s + self._step_s, next_s - slack_s), next_s + slack_s)
        self._due_s = next_s
        return Sample(gap=gap)
