"""Turns logits into probabilities at equal priors, and sets thresholds by their error rates.

What is fitted here is kept beside the checkpoint, goes from there into the bundle, and is applied by
`runtime.pipeline.decision.Calibration`; the two must mean the same, so this module returns that class.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from runtime.model.calibration import Calibration

# Below this many scores of real faces, "1 % of them" is less than one score: nothing was measured.
LEAST_FOR_FAR1 = 100
# Beyond these a fit has run away: the scores say nothing (hot), or separate so few examples that anything
# fits (cold).
SCALES = (0.05, 50.0)


class CalibrationError(ValueError):
    """Says that scores cannot be calibrated; `str()` is one line that says what to do."""


def fit_calibration(logits: ArrayLike, fake: ArrayLike, weight: ArrayLike | None = None) -> Calibration:
    """Fit scale and offset (Platt scaling) by the likelihood of held-out scores, both classes weighing alike.

    The targets are smoothed as Platt did, by one example of the other class in each: a small set that happens
    to be separable must not lead to a scale near 0.

    Args:
        logits: (N,) uncalibrated, finite; from videos that were not trained on.
        fake: (N,) truth, true for a forgery.
        weight: (N,) above 0; None for ones. Give 1 / windows of its video for videos of many windows to count
            alike.

    Returns:
        With scale and offset set; thresholds are the defaults (see `with_thresholds`).

    Raises:
        CalibrationError: A class is missing, a logit is not finite, or higher logits do not mean forgeries.

    Source:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    z, y, w = _checked(logits, fake, weight)
    # Unit spread, so that the optimiser starts near the optimum whatever the scale of the logits is.
    spread = float(np.sqrt(np.average((z - np.average(z, weights=w)) ** 2, weights=w)))
    if spread == 0:
        raise CalibrationError(
            "all scores are the same, there is nothing to calibrate; train the model first"
        )
    centre = float(np.average(z, weights=w))
    unit = (z - centre) / spread
    smooth = np.where(y, (w[y].sum() + 1) / (w[y].sum() + 2), 1 / (w[~y].sum() + 2))
    balance = w * np.where(y, 0.5 / w[y].sum(), 0.5 / w[~y].sum())

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, intercept = parameters
        score = slope * unit + intercept
        error = balance * (0.5 * (1 + np.tanh(0.5 * score)) - smooth)
        value = np.sum(balance * (np.logaddexp(0.0, score) - smooth * score))
        return float(value), np.array([np.sum(error * unit), np.sum(error)])

    # Convex in slope and intercept, so there is one optimum and the start does not matter.
    slope, intercept = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    if slope <= 0:
        raise CalibrationError(
            "higher logits do not mean forgeries here, no scale fits; train longer or check the labels"
        )
    scale = float(np.clip(spread / slope, *SCALES))
    return Calibration(scale=scale, offset=float(intercept * spread / slope - centre))


def with_thresholds(
    calibration: Calibration, logits: ArrayLike, fake: ArrayLike, *, error: float = 0.1
) -> Calibration:
    """Set the thresholds of the verdicts from held-out scores.

    A verdict of `fake` is given from where at most `error` of the real faces reach, never below one half;
    `real` up to where at most `error` of the forgeries fall, never above one half. In between lies
    `uncertain`: the weaker the model, the wider.

    Args:
        calibration: With scale and offset.
        logits: (N,) uncalibrated, finite.
        fake: (N,) truth, true for a forgery.
        error: The share of wrong verdicts to allow in each class, 0..0.5.

    Returns:
        With `threshold_fake`, `threshold_real` and, given 100 real scores, `threshold_fpr1` set.

    Raises:
        CalibrationError: A class is missing or a logit is not finite.
        ValueError: `error` is out of its range.
    """
    if not 0 <= error <= 0.5:
        raise ValueError(f"error must be within 0..0.5, not {error}")
    z, y, _ = _checked(logits, fake, None)
    p_fake = 0.5 * (1 + np.tanh(0.5 * (z + calibration.offset) / calibration.scale))
    upper = max(0.5, threshold_at_false_alarms(p_fake[~y], error))
    lower = min(0.5, 1.0 - threshold_at_false_alarms(1.0 - p_fake[y], error))
    far1 = threshold_at_false_alarms(p_fake[~y], 0.01) if (~y).sum() >= LEAST_FOR_FAR1 else None
    return replace(calibration, threshold_fake=upper, threshold_real=lower, threshold_fpr1=far1)


def threshold_at_false_alarms(p_real: ArrayLike, share: float) -> float:
    """Find the lowest threshold that at most a given share of real faces reach.

    Args:
        p_real: (N,) `p_fake` of real faces, 0..1.
        share: 0..1.

    Returns:
        0..1; a score from here on counts as reaching it. 1 where even the largest possible score is too
        common.

    Raises:
        CalibrationError: There is no score.
    """
    scores = np.sort(np.asarray(p_real, dtype=np.float64))[::-1]
    if len(scores) == 0:
        raise CalibrationError("no score of a real face to set a threshold by; give a set with both classes")
    allowed = math.floor(share * len(scores) + 1e-9)
    if allowed >= len(scores):
        return 0.0
    # Just above the first score that must not reach it; ties with it stay below too.
    return min(1.0, float(np.nextafter(scores[allowed], 2.0)))


def _checked(
    logits: ArrayLike, fake: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(fake).astype(np.bool_)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not z.shape == y.shape == w.shape or z.ndim != 1:
        raise ValueError(
            f"logits, truth and weights must be of one length, not {z.shape}, {y.shape}, {w.shape}"
        )
    if not np.isfinite(z).all():
        raise CalibrationError(
            "a logit is not a finite number; the model has diverged, go back to an earlier checkpoint"
        )
    if not y.any() or y.all():
        raise CalibrationError("only one class is there; give a set with real and fake videos")
    if not (w > 0).all():
        raise ValueError("weights must be above 0")
    return z, y, w
