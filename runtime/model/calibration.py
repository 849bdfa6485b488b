"""Calibration of logits: Platt scaling to a probability, and the thresholds of the verdict states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Platt scaling of a logit, and the thresholds from probability to verdict state.

    `p_fake = sigmoid((logit + offset) / scale)`. The offset removes the training set's share of fakes, so
    that 0.5 is the decision at equal priors; the scale corrects over-confidence.

    Args:
        scale: Divisor of the shifted logit, above 0.
        offset: Added to the logit before the division.
        threshold_fake: Lowest `p_fake` of the state `fake`, 0..1.
        threshold_real: Highest `p_fake` of the state `real`, 0..1; in between the state is `uncertain`.
        hysteresis: Distance from the threshold, on its other side, at which a state is left, 0..0.1.
        threshold_fpr1: `p_fake` at a false positive rate of 1 % in calibration; None if not measured.

    Raises:
        ValueError: A value is out of its range.

    Source:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """

    scale: float = 1.0
    offset: float = 0.0
    threshold_fake: float = 0.6
    threshold_real: float = 0.4
    hysteresis: float = 0.03
    threshold_fpr1: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"calibration.scale must be above 0, not {self.scale}")
        if not math.isfinite(self.offset):
            raise ValueError(f"calibration.offset must be finite, not {self.offset}")
        if not 0 <= self.threshold_real <= self.threshold_fake <= 1:
            raise ValueError(
                "calibration thresholds must be in order within 0..1 (real <= fake), "
                f"not real {self.threshold_real}, fake {self.threshold_fake}"
            )
        if not 0 <= self.hysteresis <= 0.1:
            raise ValueError(f"calibration.hysteresis must be within 0..0.1, not {self.hysteresis}")
        if self.threshold_fpr1 is not None and not 0 <= self.threshold_fpr1 <= 1:
            raise ValueError(f"calibration.threshold_fpr1 must be within 0..1, not {self.threshold_fpr1}")

    def calibrated(self, logit: float) -> float:
        """Return the calibrated logit, `(logit + offset) / scale`.

        Args:
            logit: Output of the head for one window, or a mean of several.
        """
        return (logit + self.offset) / self.scale

    def p_fake(self, logit: float) -> float:
        """Return the calibrated probability of a fake at equal priors, 0..1.

        Args:
            logit: Output of the head for one window, or a mean of several.

        Raises:
            ValueError: The logit is not finite.
        """
        if not math.isfinite(logit):
            raise ValueError(f"the logit must be finite, not {logit}")
        # Written with tanh because exp overflows for the large logits of a saturated model.
        return 0.5 * (1.0 + math.tanh(0.5 * self.calibrated(logit)))

    def state(self, p_fake: float) -> Literal["real", "uncertain", "fake"]:
        """Return the state of a score without hysteresis.

        Args:
            p_fake: Calibrated probability of a fake, 0..1.
        """
        if p_fake >= self.threshold_fake:
            return "fake"
        return "real" if p_fake <= self.threshold_real else "uncertain"
