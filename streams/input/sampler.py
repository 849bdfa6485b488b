"""Choice of the frames that are analysed: one in every 1 / `sample_hz` seconds of media time.

No I/O and no clock: it decides by the media times of the frames.

    sampler = Sampler(8.0)
    for frame in decoded:
        if sampler.offer(frame.pts_s):
            analyse(frame)

While the analysis is behind, `ThinnedSampler` chooses fewer of them, at intervals that a window accepts.
"""

from __future__ import annotations

import statistics
from collections import deque

from streams.input.continuity import Chain, Spacing

__all__ = ["MIN_STEP", "Sampler", "ThinnedSampler"]

MIN_STEP = 0.7
"""Shortest interval between two samples that the model accepts, in nominal intervals."""

_MAX_CHOSEN_STEP = 1.5  # a frame is not skipped if the interval to the next one would exceed this
# The same while the analysis is behind. Below `MAX_STEP`, so that a frame may be a little late; 5 samples per
# second of 8 are possible (1.6), at the usual frame rates.
_MAX_THINNED_STEP = 1.7
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

    def offer(self, pts_s: float, *, behind: bool = False) -> bool:
        """Decide on one decoded frame.

        Args:
            pts_s: Presentation time in seconds. Every decoded frame must be offered, in order.
            behind: Whether to leave out a due frame if a later one will do.

        Returns:
            Whether the frame is due.
        """
        if self._frame_s is None or self._sample_s is None:
            self._chain.append(pts_s, restart=True)
            return self._take(pts_s, restart=True)
        interval_s = pts_s - self._frame_s
        if self._spacing.is_jump_back(interval_s):
            self.restart()
            return self.offer(pts_s, behind=behind)
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
        # After a bridged interval, another long one would break the sequence.
        thin = behind and not self._chain.bridged
        latest_s = _MAX_THINNED_STEP * self._step_s + _TOLERANCE_S if thin else longest_s
        nearest = not thin and pts_s >= self._due_s - self._interval_s / 2 - _TOLERANCE_S
        if not nearest and elapsed_s + self._interval_s <= latest_s:
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


class ThinnedSampler:
    """Sampler that takes fewer frames while the analysis is slower than the sample rate.

    A due frame is left out while earlier samples wait, as long as the next frame comes soon enough to share a
    window with the last sample. The average interval follows the speed of the analysis, up to 1.7 nominal
    intervals. The properties of the source (`timeline`, `recoveries`, `too_slow`, `fps`, `due`) do not depend
    on the analysis.

    Args:
        sample_hz: Nominal rate in samples per second of media time.
        fps: Frame rate of the source if known.

    Attributes:
        due: Whether the frame offered last is due at the nominal rate.

    Raises:
        ValueError: `sample_hz` is not positive.
    """

    def __init__(self, sample_hz: float, *, fps: float | None = None) -> None:
        self.due = False
        self._nominal = Sampler(sample_hz, fps=fps)
        self._chosen = Sampler(sample_hz, fps=fps)
        self._surplus = 0
        self._thinned = 0

    @property
    def timeline(self) -> int:
        """Return the number of times that media time has jumped back."""
        return self._nominal.timeline

    @property
    def recoveries(self) -> int:
        """Return the number of times that the source was too slow and recovered."""
        return self._nominal.recoveries

    @property
    def too_slow(self) -> bool:
        """Return whether the source's frames come too slowly, or too unevenly, for a window."""
        return self._nominal.too_slow

    @property
    def fps(self) -> float | None:
        """Return the frame rate of the source; see `Sampler.fps`."""
        return self._nominal.fps

    @property
    def thinned(self) -> int:
        """Return how many due samples were left out so far."""
        return self._thinned

    def restart(self) -> None:
        """Start a new timeline, because the next times cannot be compared with the previous ones."""
        self._nominal.restart()
        self._chosen.restart()

    def offer(self, pts_s: float, *, behind: bool) -> bool:
        """Decide on one decoded frame.

        Args:
            pts_s: Presentation time in seconds. Every decoded frame must be offered, in order.
            behind: Whether earlier samples wait for the analysis.

        Returns:
            Whether to analyse the frame.
        """
        self.due = self._nominal.offer(pts_s)
        chosen = self._chosen.offer(pts_s, behind=behind)
        self._surplus += self.due - chosen
        if behind:
            self._thinned = max(self._thinned, self._surplus)
        return chosen
