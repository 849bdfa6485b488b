"""Choice of the frames that are analysed: one in every 1 / `sample_hz` seconds of media time.

No I/O and no clock: it decides by the media times of the frames.

    sampler = Sampler(8.0)
    for frame in decoded:
        if sampler.offer(frame.pts_s):
            analyse(frame)
"""

from __future__ import annotations

import statistics
from collections import deque

from streams.input.continuity import Chain, Spacing

__all__ = ["MIN_STEP", "Sampler"]

MIN_STEP = 0.7
"""Shortest interval between two samples that the model accepts, in nominal intervals."""

_MAX_CHOSEN_STEP = 1.5  # a frame is not skipped if the interval to the next one would exceed this
_TOLERANCE_S = 1e-6  # absorbs rounding of times
# Odd, so that the median of two alternating intervals is one of them and not their mean.
_INTERVALS_KEPT = 15
_INTERVALS_NEEDED = 5
# A source with three breaks within nine samples never fills the shortest window. It has recovered after four
# samples without a break.
_STEPS_KEPT = 9
_BREAKS_TOO_SLOW = 3
_STEPS_RECOVERED = 4


class Sampler:
    """Sampler on a time grid whose average rate is `sample_hz` at any frame rate that allows it.

    The frame nearest to each grid point is taken, as long as intervals stay within 0.7 to 1.5 of nominal. Of
    a 10 fps source sampled at 8 Hz every frame is taken, because leaving one out would cause a longer
    interval. Below `sample_hz / 1.5` frames per second every frame is taken too.

    Args:
        sample_hz: Nominal rate in samples per second of media time.
        fps: Frame rate of the source if known; it is measured from the offered times in any case.

    Attributes:
        timeline: Number of times that media time has jumped back.
        recoveries: Number of times that the source was too slow and recovered.
        too_slow: Whether frames come too slowly, or too unevenly, for a window of samples without a break.

    Raises:
        ValueError: `sample_hz` is not positive.
    """

    def __init__(self, sample_hz: float, *, fps: float | None = None) -> None:
        self.timeline = 0
        self.recoveries = 0
        self.too_slow = False
        self._spacing = Spacing(sample_hz)
        self._chain = Chain(self._spacing)
        self._step_s = 1 / sample_hz
        self._interval_s = 1 / fps if fps else 0.0
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS_KEPT)
        self._steps: deque[tuple[float, bool]] = deque(maxlen=_STEPS_KEPT)
        self._frame_s: float | None = None
        self._sample_s: float | None = None
        self._due_s = 0.0

    @property
    def fps(self) -> float | None:
        """Return the measured frame rate, or the given one before it is measured; None if neither is known.

        While the source is too slow, it is the median rate over the intervals that broke the sequence.
        """
        breaks = [interval_s for interval_s, is_break in self._steps if is_break]
        if self.too_slow and breaks:
            return 1 / statistics.median(breaks)
        return 1 / self._interval_s if self._interval_s else None

    def restart(self) -> None:
        """Start a new timeline, because the next times cannot be compared with the previous ones."""
        self.timeline += 1
        self._frame_s = self._sample_s = None

    def offer(self, pts_s: float) -> bool:
        """Decide on one decoded frame.

        Args:
            pts_s: Presentation time in seconds. Every decoded frame must be offered, in order.

        Returns:
            Whether the frame is due.
        """
        if self._frame_s is None or self._sample_s is None:
            self._chain.append(pts_s, restart=True)
            return self._take(pts_s, restart=True)
        interval_s = pts_s - self._frame_s
        if self._spacing.is_jump_back(interval_s):
            self.restart()
            return self.offer(pts_s)
        if interval_s <= _TOLERANCE_S:
            return False  # a duplicate
        self._frame_s = pts_s
        self._intervals_s.append(interval_s)
        if len(self._intervals_s) >= _INTERVALS_NEEDED or not self._interval_s:
            self._interval_s = statistics.median(self._intervals_s)

        elapsed_s = pts_s - self._sample_s
        if elapsed_s < MIN_STEP * self._step_s - _TOLERANCE_S:
            return False
        longest_s = _MAX_CHOSEN_STEP * self._step_s + _TOLERANCE_S
        nearest = pts_s >= self._due_s - self._interval_s / 2 - _TOLERANCE_S
        if not nearest and elapsed_s + self._interval_s <= longest_s:
            return False
        self._update_too_slow(elapsed_s, follows=self._chain.append(pts_s))
        return self._take(pts_s, restart=elapsed_s > longest_s)

    def _take(self, pts_s: float, *, restart: bool) -> bool:
        self._frame_s = self._sample_s = pts_s
        next_s = pts_s + self._step_s
        if not restart:
            # The grid continues, but stays within half a frame interval of the samples taken. Otherwise it
            # would fall behind at a frame rate below the sample rate, and later samples would be too close.
            slack_s = self._interval_s / 2
            next_s = min(max(self._due_s + self._step_s, next_s - slack_s), next_s + slack_s)
        self._due_s = next_s
        return True

    def _update_too_slow(self, elapsed_s: float, *, follows: bool) -> None:
        """Update `too_slow` with the interval between two samples."""
        self._steps.append((elapsed_s, not follows))
        if not self.too_slow:
            self.too_slow = sum(is_break for _, is_break in self._steps) >= _BREAKS_TOO_SLOW
        elif not any(is_break for _, is_break in list(self._steps)[-_STEPS_RECOVERED:]):
            self.too_slow = False
            self.recoveries += 1
            self._steps.clear()
