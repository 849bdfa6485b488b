"""Metrics of a detector's scores: AUC, average precision, equal error rate, accuracy, calibration error.

Every metric takes a weight per score, so that the bootstrap can draw groups by weight.

    auc(fake, logits)
    balanced_accuracy_at(0.5)(fake, p_fake)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from train.scoring.bootstrap import Metric

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


def auc(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Compute the area under the ROC curve.

    Args:
        fake: Labels `(N,)`, true for a fake.
        score: Scores `(N,)`: any real numbers, higher for more likely fake; not decisions.
        weight: Weights `(N,)`, at least 0; None for ones.

    Returns:
        0..1; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    return float(roc_auc_score(y, s, sample_weight=w)) if _has_both(y) else math.nan


def average_precision(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Compute the average precision with fakes as the positive class. It depends on the share of fakes.

    Args:
        fake: Labels `(N,)`, true for a fake.
        score: Scores `(N,)`: any real numbers, higher for more likely fake.
        weight: Weights `(N,)`, at least 0; None for ones.

    Returns:
        0..1; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    return float(average_precision_score(y, s, sample_weight=w)) if _has_both(y) else math.nan


def equal_error_rate(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Compute the equal error rate (EER): the error where false positive rate and false negative rate meet.

    Args:
        fake: Labels `(N,)`, true for a fake.
        score: Scores `(N,)`: any real numbers, higher for more likely fake.
        weight: Weights `(N,)`, at least 0; None for ones.

    Returns:
        0..1, interpolated between the operating points around the crossing; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    if not _has_both(y):
        return math.nan
    fpr, tpr, _ = roc_curve(y, s, sample_weight=w)
    gap = (1.0 - tpr) - fpr
    # The gap falls from 1 to -1 along the curve; the first point not above zero ends the crossing segment.
    after = int(np.argmax(gap <= 0))
    before = max(after - 1, 0)
    step = gap[before] - gap[after]
    share = gap[before] / step if step > 0 else 0.0
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def accuracy_at(threshold: float) -> Metric:
    """Return the accuracy at a threshold as a metric.

    Args:
        threshold: Scores from here on are predicted fake.

    Returns:
        The metric: 0..1, nan if nothing has weight.
    """

    def accuracy(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        y, s, w = _checked(fake, score, weight)
        return float(np.average((s >= threshold) == y, weights=w)) if len(y) else math.nan

    return accuracy


def balanced_accuracy_at(threshold: float) -> Metric:
    """Return the balanced accuracy at a threshold, the mean of TPR and TNR, as a metric.

    Args:
        threshold: Scores from here on are predicted fake.

    Returns:
        The metric: 0..1, nan if only one class has weight.
    """

    def balanced_accuracy(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        y, s, w = _checked(fake, score, weight)
        if not _has_both(y):
            return math.nan
        predicted = s >= threshold
        tpr = np.average(predicted[y], weights=w[y])
        tnr = np.average(~predicted[~y], weights=w[~y])
        return 0.5 * float(tpr + tnr)

    return balanced_accuracy


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Reliability diagram: one entry per bin that is not empty.

    Args:
        p_fake: Mean prediction in each bin `(B,)`, 0..1.
        fake_share: Share of fakes in each bin `(B,)`, 0..1.
        weight: Share of the total weight in each bin `(B,)`; sums to 1.
        count: Number of scores in each bin `(B,)`.
    """

    p_fake: Scores
    fake_share: Scores
    weight: Scores
    count: NDArray[np.int64]


def reliability(
    fake: ArrayLike,
    p_fake: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int = 10,
    balanced: bool = True,
) -> Reliability:
    """Compare predicted probabilities with observed shares of fakes, in bins of equal width.

    Args:
        fake: Labels `(N,)`, true for a fake.
        p_fake: Predictions `(N,)`, 0..1.
        weight: Weights `(N,)`, at least 0; None for ones.
        bins: Number of bins between 0 and 1.
        balanced: Give both classes the same total weight, because `p_fake` is meant for equal priors.
            Otherwise the class shares of the data set would look like a calibration error.

    Returns:
        The bins.

    Raises:
        ValueError: A prediction is outside 0..1, or only one class has weight and `balanced` is set.
    """
    y, p, w = _checked(fake, p_fake, weight)
    if len(p) and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"predictions must be within 0..1, not {p.min()}..{p.max()}")
    if balanced:
        if not _has_both(y):
            raise ValueError("only one class is present; equal priors need both")
        w = w * np.where(y, 0.5 / w[y].sum(), 0.5 / w[~y].sum())
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    total = np.bincount(index, weights=w, minlength=bins)
    count = np.bincount(index, minlength=bins)
    used = total > 0
    return Reliability(
        p_fake=np.bincount(index, weights=w * p, minlength=bins)[used] / total[used],
        fake_share=np.bincount(index, weights=w * y, minlength=bins)[used] / total[used],
        weight=total[used] / total.sum(),
        count=count[used],
    )


def expected_calibration_error(
    fake: ArrayLike,
    p_fake: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int = 10,
    balanced: bool = True,
) -> float:
    """Compute the expected calibration error (ECE): the mean gap between predictions and observed shares.

    With few scores per bin it is biased upwards; even a perfectly calibrated model does not reach 0.

    Args:
        fake: Labels `(N,)`, true for a fake.
        p_fake: Predictions `(N,)`, 0..1.
        weight: Weights `(N,)`, at least 0; None for ones.
        bins: Number of bins between 0 and 1.
        balanced: Give both classes the same total weight (see `reliability`).

    Returns:
        0..1; nan if only one class has weight and `balanced` is set.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    y, _, _ = _checked(fake, p_fake, weight)
    if len(y) == 0 or (balanced and not _has_both(y)):
        return math.nan
    diagram = reliability(fake, p_fake, weight, bins=bins, balanced=balanced)
    return float(np.sum(diagram.weight * np.abs(diagram.p_fake - diagram.fake_share)))


def _checked(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> tuple[Labels, Scores, Scores]:
    y, s = np.asarray(fake).astype(np.bool_), np.asarray(score, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not y.shape == s.shape == w.shape or y.ndim != 1:
        raise ValueError(
            f"labels, scores and weights must have the same length, not {y.shape}, {s.shape}, {w.shape}"
        )
    if not np.isfinite(s).all():
        raise ValueError("a score is not a finite number")
    # A class without weight in this bootstrap draw must not count as present.
    kept = w > 0
    return y[kept], s[kept], w[kept]


def _has_both(fake: Labels) -> bool:
    return bool(fake.any()) and not bool(fake.all())
