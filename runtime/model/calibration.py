"""Calibration: from a logit to the probability of a fake, and the thresholds of the states."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
        threshold_fpr1: The `p_fake` that 1 % of real faces reached in calibration; None if not measured.

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
    threshold_fpr1: float | None = None

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
        if self.threshold_fpr1 is not None and not 0 <= self.threshold_fpr1 <= 1:
            raise ValueError(f"threshold_fpr1 must be within 0..1, not {self.threshold_fpr1}")

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
