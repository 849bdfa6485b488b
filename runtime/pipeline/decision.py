"""What a logit means: calibration, and the verdict on one face over time.

Pure: values and a time go in, a verdict comes out. What is not backed by fresh samples carries no score.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.messages import State
from runtime.model.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Verdict:
    """Holds what is said of a face at one moment.

    Args:
        state: `warming` (too few samples yet), `real`, `uncertain`, `fake`, or `stale` (samples stopped).
        p_fake: 0..1; None exactly when the state is `warming` or `stale`.
    """

    state: State
    p_fake: float | None

    @property
    def scored(self) -> bool:
        """Tell whether this verdict carries a score."""
        return self.p_fake is not None


WARMING = Verdict("warming", None)
STALE = Verdict("stale", None)


class FaceDecision:
    """Judges one face: keeps a score on a threshold from flickering, and lets an old verdict expire.

    Times are in seconds of any one clock that the caller keeps to.

    Args:
        calibration: The bundle's.
        min_fill: The share of the window below which a face is `warming`, 0..1.
        expiry_s: A verdict older than this is `stale`.
    """

    def __init__(self, calibration: Calibration, *, min_fill: float, expiry_s: float) -> None:
        if not 0 <= min_fill <= 1:
            raise ValueError(f"min_fill must be within 0..1, not {min_fill}")
        if not expiry_s > 0:
            raise ValueError(f"expiry_s must be above 0, not {expiry_s}")
        self.calibration = calibration
        self.min_fill = min_fill
        self.expiry_s = expiry_s
        self._last = WARMING
        self._sampled_at: float | None = None

    def update(self, logit: float | None, fill: float, now: float) -> Verdict:
        """Take in a new sample of the face and give the verdict on it.

        Args:
            logit: The head's output over the buffer, uncalibrated; None while the buffer is too short for it.
            fill: The share of the window that is filled, 0..1.
            now: When the sample was taken.

        Returns:
            `warming` while `fill` is below `min_fill` or there is no logit, else a scored verdict.

        Raises:
            ValueError: The logit is not a finite number.
        """
        # What was said before a break says nothing about the face that appears after it.
        previous = self.current(now).state
        # An epsilon, as fill is a quotient: 5/16 of a window must count as 5 samples.
        if logit is None or fill < self.min_fill - 1e-9:
            self._last = WARMING
        else:
            p_fake = self.calibration.p_fake(logit)
            self._last = Verdict(self._decide(p_fake, previous), p_fake)
        self._sampled_at = now
        return self._last

    def current(self, now: float) -> Verdict:
        """Give the verdict that holds at a moment, without a new sample.

        Args:
            now: The moment.

        Returns:
            The last verdict, or `stale` once its sample is older than `expiry_s`.
        """
        if self._sampled_at is not None and now - self._sampled_at > self.expiry_s:
            return STALE
        return self._last

    def keep_alive(self, now: float) -> None:
        """Keep the last verdict alive: a fresh sample was buffered, but no verdict was due on it.

        Args:
            now: When the sample was taken.
        """
        # A verdict that has expired stays expired until a new score exists.
        if self.current(now) is not STALE:
            self._sampled_at = now

    def reset(self) -> None:
        """Forget the past: the buffer was cleared."""
        self._last = WARMING
        self._sampled_at = None

    def _decide(self, p_fake: float, previous: State) -> State:
        scale = self.calibration
        if previous == "fake" and p_fake >= scale.threshold_fake - scale.hysteresis:
            return "fake"
        if previous == "real" and p_fake <= scale.threshold_real + scale.hysteresis:
            return "real"
        if p_fake >= scale.threshold_fake:
            return "fake"
        if p_fake <= scale.threshold_real:
            return "real"
        return "uncertain"
