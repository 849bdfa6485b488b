"""Which of a source's frames the model should see: one in every 1 / `sample_hz` seconds of media time.

sampler = Sampler(8.0)
for picture in decoded:
    if sample := sampler.offer(picture.time):
        use(picture, restart=sample.gap)
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

__all__ = ["MAX_STEP", "MIN_STEP", "Sample", "Sampler"]

MIN_STEP = 0.7
"""Shortest interval between two samples the model accepts, in nominal intervals."""

MAX_STEP = 1.5
"""Longest interval between two samples the model accepts, in nominal intervals; more is a gap."""

_TOLERANCE = 1e-6  # seconds: times that are equal but for rounding are equal
_INTERVALS_KEPT = (
    15  # odd, so that the median is one of them: two alternating ones give no interval in between
)
_INTERVALS_NEEDED = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame that is due."""

    gap: bool
    """Whether the time since the previous sample is not one the model accepts, or there was none."""


class Sampler:
    """Chooses frames on a time grid so that their rate averages `sample_hz` at any frame rate that allows it.

    The frame nearest to each grid point is taken, as far as intervals between 0.7 and 1.5 of nominal can be
    kept: a 10 fps source sampled at 8 Hz gives all its frames, since leaving out one would open a gap.

    Args:
        sample_hz: Nominal rate in samples per second of media time.
        fps: The source's frame rate if it is known; measured from the times offered in any case.

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
        """Return the measured frame rate; until there is one, the rate given; None if neither is known."""
        return 1 / self._interval_s if self._interval_s else None

    @property
    def too_slow(self) -> bool:
        """Return whether the source's own frames come too rarely for the model, as measured."""
        measured = len(self._intervals_s) >= _INTERVALS_NEEDED
        return measured and self._interval_s > MAX_STEP * self._step_s + _TOLERANCE

    def offer(self, pts_s: float) -> Sample | None:
        """Decide on one decoded frame.

        Args:
            pts_s: Its presentation time in seconds; every decoded frame is offered, in order.

        Returns:
            The sample if the frame is due, None if it is not.
        """
        if self._frame_s is None or self._sample_s is None or pts_s < self._frame_s - _TOLERANCE:
            # The first frame, or the source jumped back: nothing before it is comparable.
            return self._take(pts_s, gap=True, restart=True)
        interval_s = pts_s - self._frame_s
        if interval_s <= _TOLERANCE:
            return None  # the same picture twice
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
            # The grid goes on, unless the frame rate cannot follow it: then it moves along by half a frame at
            # most, or a debt of samples would build up and be paid back at the wrong rate.
            slack_s = self._interval_s / 2
            next_s = min(max(self._due_s + self._step_s, next_s - slack_s), next_s + slack_s)
        self._due_s = next_s
        return Sample(gap=gap)
