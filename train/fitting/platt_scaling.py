"""Platt scaling of logits to probabilities at equal priors, and thresholds by error rates.

calibration = fit_platt(logits, fake)
calibration = with_thresholds(calibration, logits, fake)
p_fake = calibration.p_fake(logit)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from runtime.model.calibration import Calibration
from train.errors import TrainError

MIN_FOR_FPR1 = 100
"""Minimum number of real scores for a threshold at 1 % FPR: 1 % of fewer is less than one score."""
SCALES = (0.05, 50.0)
"""Range of the scale. A larger one means scores without information, a smaller one so few examples that any
scale fits."""


class CalibrationError(TrainError):
    """Scores that cannot be calibrated; the message is one line with advice."""


def fit_platt(logits: ArrayLike, fake: ArrayLike, weight: ArrayLike | None = None) -> Calibration:
    """Fit scale and offset to held-out scores by maximum likelihood, with equal weight of both classes.

    As in Platt's method, the targets are smoothed by one example of the other class in each class, so that a
    small separable set does not lead to a scale near 0.

    Args:
        logits: Uncalibrated logits `(N,)`, finite, of videos that were not trained on.
        fake: Labels `(N,)`, true for a fake.
        weight: Weights `(N,)`, above 0; None for ones. See `video_weights`.

    Returns:
        A calibration with scale and offset; its thresholds are the defaults (see `with_thresholds`).

    Raises:
        CalibrationError: A class is missing, a logit is not finite, or higher logits do not mean fakes.

    Source:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    z, y, w = _checked(logits, fake, weight)
    centre = float(np.average(z, weights=w))
    spread = float(np.sqrt(np.average((z - centre) ** 2, weights=w)))
    if spread == 0:
        raise CalibrationError(
            "all scores are equal, so there is nothing to calibrate; train the model first"
        )
    # Standardised, so that the solver's tolerance does not depend on the scale of the logits.
    unit = ((z - centre) / spread)[:, None]
    target = np.where(y, (w[y].sum() + 1) / (w[y].sum() + 2), 1 / (w[~y].sum() + 2))
    balanced = w * np.where(y, 0.5 / w[y].sum(), 0.5 / w[~y].sum())
    # scikit-learn takes labels, not probabilities as targets: each example is given once with either label.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9)
    regression.fit(
        np.concatenate([unit, unit]),
        np.repeat([True, False], len(z)),
        sample_weight=np.concatenate([balanced * target, balanced * (1 - target)]),
    )
    slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    if slope <= 0:
        raise CalibrationError(
            "fakes do not have higher logits than real videos; train longer or check the labels"
        )
    scale = float(np.clip(spread / slope, *SCALES))
    return Calibration(scale=scale, offset=intercept * spread / slope - centre)


def with_thresholds(
    calibration: Calibration,
    logits: ArrayLike,
    fake: ArrayLike,
    *,
    max_fpr: float = 0.03,
    max_fnr: float = 0.1,
) -> Calibration:
    """Set the thresholds of the verdicts from held-out scores.

    The verdict is `fake` from the threshold where the false positive rate is at most `max_fpr`, and never
    below 0.5. It is `real` up to the threshold where the false negative rate is at most `max_fnr`, and never
    above 0.5. It is `uncertain` in between: the weaker the model, the wider that range. A real person called
    fake is the worse error, so fewer of them are allowed, and on other cameras there are more of them.

    Args:
        calibration: Calibration with scale and offset.
        logits: Uncalibrated logits `(N,)`, finite.
        fake: Labels `(N,)`, true for a fake.
        max_fpr: Allowed false positive rate, 0..0.5.
        max_fnr: Allowed false negative rate, 0..0.5.

    Returns:
        The calibration with `threshold_fake`, `threshold_real` and, given 100 real scores, `threshold_fpr1`.

    Raises:
        CalibrationError: A class is missing or a logit is not finite.
        ValueError: A rate is out of its range.
    """
    for name, rate in (("max_fpr", max_fpr), ("max_fnr", max_fnr)):
        if not 0 <= rate <= 0.5:
            raise ValueError(f"{name} must be within 0..0.5, not {rate}")
    z, y, _ = _checked(logits, fake, None)
    p_fake = 0.5 * (1 + np.tanh(0.5 * (z + calibration.offset) / calibration.scale))
    upper = max(0.5, threshold_at_fpr(p_fake[~y], max_fpr))
    lower = min(0.5, 1.0 - threshold_at_fpr(1.0 - p_fake[y], max_fnr))
    fpr1 = threshold_at_fpr(p_fake[~y], 0.01) if (~y).sum() >= MIN_FOR_FPR1 else None
    return replace(calibration, threshold_fake=upper, threshold_real=lower, threshold_fpr1=fpr1)


def threshold_at_fpr(scores_of_real: ArrayLike, fpr: float) -> float:
    """Return the lowest threshold with at most a given false positive rate.

    Args:
        scores_of_real: `p_fake` of real faces `(N,)`, 0..1.
        fpr: Allowed false positive rate, 0..1.

    Returns:
        The threshold, 0..1; a score equal to it counts as positive. 1 if even the largest possible score is
        too common.

    Raises:
        CalibrationError: There is no score.
    """
    scores = np.sort(np.asarray(scores_of_real, dtype=np.float64))[::-1]
    if len(scores) == 0:
        raise CalibrationError("no score of a real face to set a threshold by; give a set with both classes")
    allowed = math.floor(fpr * len(scores) + 1e-9)
    if allowed >= len(scores):
        return 0.0
    # Just above the highest score that must not be positive, and so above ties with it too.
    return min(1.0, float(np.nextafter(scores[allowed], 2.0)))


def _checked(
    logits: ArrayLike, fake: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(fake).astype(np.bool_)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not z.shape == y.shape == w.shape or z.ndim != 1:
        raise ValueError(
            f"logits, labels and weights must have the same length, not {z.shape}, {y.shape}, {w.shape}"
        )
    if not np.isfinite(z).all():
        raise CalibrationError(
            "a logit is not a finite number; the model has diverged, use an earlier checkpoint"
        )
    if not y.any() or y.all():
        raise CalibrationError("only one class is present; give a set with real and fake videos")
    if not (w > 0).all():
        raise ValueError("weights must be above 0")
    return z, y, w
