"""What a logit means: calibration, and the verdict on one face over time.

Pure: values and a time go in, a verdict comes out. What is not backed by fresh samples carries no score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

State = Literal["warming", "real", "uncertain", "fake", "stale"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Turns the model's logit into a probability and a probability into a state.

    The calibrated logit is `(logit + bias) / temperature` and `p_fake` its sigmoid: the bias takes out the
    training set's share of forgeries, so that 0.5 is the balanced decision; the temperature, over-confidence.

    Args:
        temperature: Above 0.
        bias: Added to the logit before the temperature divides.
        threshold_fake: `p_fake` from here on is `fake`, 0..1.
        threshold_real: `p_fake` up to here is `real`, 0..1; between the two it is `uncertain`.
        hysteresis: How far beyond its threshold `p_fake` must go back before a verdict is given up, 0..0.1.
        threshold_far1: The `p_fake` that 1 % of real faces reached in calibration; None if not measured.

    Raises:
        ValueError: A value is out of its range.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (temperature scaling).
    """

    temperature: float = 1.0
    bias: float = 0.0
    threshold_fake: float = 0.6
    threshold_real: float = 0.4
    hysteresis: float = 0.03
    threshold_far1: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if not math.isfinite(self.bias):
            raise ValueError(f"bias must be finite, not {self.bias}")
        if not 0 <= self.threshold_real <= self.threshold_fake <= 1:
            raise ValueError(
                "thresholds must be in order within 0..1 (real <= fake), "
                f"not real {self.threshold_real}, fake {self.threshold_fake}"
            )
        if not 0 <= self.hysteresis <= 0.1:
            raise ValueError(f"hysteresis must be within 0..0.1, not {self.hysteresis}")
        if self.threshold_far1 is not None and not 0 <= self.threshold_far1 <= 1:
            raise ValueError(f"threshold_far1 must be within 0..1, not {self.threshold_far1}")

    def calibrated(self, logit: float) -> float:
        """Calibrate a logit.

        Args:
            logit: The head's output for one window, or a mean of several.

        Returns:
            `(logit + bias) / temperature`.
        """
        return (logit + self.bias) / self.temperature

    def p_fake(self, logit: float) -> float:
        """Give the calibrated probability of a forgery, at equal priors.

        Args:
            logit: The head's output for one window, or a mean of several.

        Returns:
            0..1.

        Raises:
            ValueError: The logit is not a finite number; there is no score in it.
        """
        if not math.isfinite(logit):
            raise ValueError(f"no score in a logit of {logit}")
        # Written with tanh because exp overflows for logits that a saturated model does give.
        return 0.5 * (1.0 + math.tanh(0.5 * self.calibrated(logit)))


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


class Judge:
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

    def judge(self, logit: float | None, fill: float, now: float) -> Verdict:
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
        previous = self.at(now).state
        # An epsilon, as fill is a quotient: 5/16 of a window must count as 5 samples.
        if logit is None or fill < self.min_fill - 1e-9:
            self._last = WARMING
        else:
            p_fake = self.calibration.p_fake(logit)
            self._last = Verdict(self._decide(p_fake, previous), p_fake)
        self._sampled_at = now
        return self._last

    def at(self, now: float) -> Verdict:
        """Give the verdict that holds at a moment, without a new sample.

        Args:
            now: The moment.

        Returns:
            The last verdict, or `stale` once its sample is older than `expiry_s`.
        """
        if self._sampled_at is not None and now - self._sampled_at > self.expiry_s:
            return STALE
        return self._last

    def sampled(self, now: float) -> None:
        """Keep the last verdict alive: a fresh sample was buffered, but no verdict was due on it.

        Args:
            now: When the sample was taken.
        """
        # A verdict that has expired stays expired until a new score exists.
        if self.at(now) is not STALE:
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
