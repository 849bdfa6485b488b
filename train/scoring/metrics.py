"""Measures of a detector's scores, with intervals that respect what belongs together.

Pure: arrays in, numbers out. Every measure takes a weight per score, so that the bootstrap can draw whole
groups (an original video with all of its forgeries) by weighing instead of copying. Clips of one pair fail
together; an interval that draws clips singly would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


class Metric(Protocol):
    """Measures scores against the truth, each counting as much as its weight."""

    def __call__(self, fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        """Measure.

        Args:
            fake: (N,) truth, true for a forgery.
            score: (N,) scores, higher for more likely forged.
            weight: (N,) at least 0; None for ones.

        Returns:
            The measure; nan where it is undefined.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Holds a measure and its bootstrap interval.

    Args:
        value: On all scores; nan where it is undefined (one class only).
        low: Lower end of the interval; nan where there is none.
        high: Upper end of the interval; nan where there is none.
        groups: How many groups were drawn from.
    """

    value: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Measure the area under the ROC curve.

    Args:
        fake: (N,) truth, true for a forgery.
        score: (N,) any real numbers, higher for more likely forged; never hard labels.
        weight: (N,) at least 0; None for ones.

    Returns:
        0..1; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    return float(roc_auc_score(y, s, sample_weight=w)) if _both(y) else math.nan


def average_precision(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Measure the average precision with forgeries as the positive class; it depends on their share.

    Args:
        fake: (N,) truth, true for a forgery.
        score: (N,) any real numbers, higher for more likely forged.
        weight: (N,) at least 0; None for ones.

    Returns:
        0..1; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    return float(average_precision_score(y, s, sample_weight=w)) if _both(y) else math.nan


def equal_error_rate(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Measure the error rate where as large a share of reals is called fake as of fakes is called real.

    Args:
        fake: (N,) truth, true for a forgery.
        score: (N,) any real numbers, higher for more likely forged.
        weight: (N,) at least 0; None for ones.

    Returns:
        0..1, interpolated between the operating points around the crossing; nan if only one class has weight.
    """
    y, s, w = _checked(fake, score, weight)
    if not _both(y):
        return math.nan
    false_alarms, hits, _ = roc_curve(y, s, sample_weight=w)
    gap = (1.0 - hits) - false_alarms
    # The gap falls from 1 to -1 along the curve; the first point not above zero ends the crossing segment.
    after = int(np.argmax(gap <= 0))
    before = max(after - 1, 0)
    step = gap[before] - gap[after]
    share = gap[before] / step if step > 0 else 0.0
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))


def accuracy_at(threshold: float) -> Metric:
    """Make the accuracy at a threshold, as a measure that the bootstrap can call.

    Args:
        threshold: A score from here on is called fake.

    Returns:
        The measure; it gives 0..1 (nan if nothing has weight).
    """

    def accuracy(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        y, s, w = _checked(fake, score, weight)
        return float(np.average((s >= threshold) == y, weights=w)) if len(y) else math.nan

    return accuracy


def balanced_accuracy_at(threshold: float) -> Metric:
    """Make the mean of the two classes' accuracies at a threshold, as a measure that the bootstrap can call.

    Args:
        threshold: A score from here on is called fake.

    Returns:
        The measure; it gives 0..1 (nan if only one class has weight).
    """

    def balanced_accuracy(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        y, s, w = _checked(fake, score, weight)
        if not _both(y):
            return math.nan
        called = s >= threshold
        return 0.5 * float(np.average(called[y], weights=w[y]) + np.average(~called[~y], weights=w[~y]))

    return balanced_accuracy


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Holds a reliability diagram: one entry per bin that is not empty.

    Args:
        p_fake: (B,) mean prediction in the bin, 0..1.
        fake_share: (B,) share of forgeries in the bin, 0..1.
        weight: (B,) the bin's share of all weight; sums to 1.
        count: (B,) scores in the bin.
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
    """Compare predicted probabilities with the shares of forgeries that they meet, in bins of equal width.

    Args:
        fake: (N,) truth, true for a forgery.
        p_fake: (N,) predictions, 0..1.
        weight: (N,) at least 0; None for ones.
        bins: How many bins of equal width between 0 and 1.
        balanced: Weigh the classes alike, as `p_fake` is meant for equal priors; the set's own shares
            would otherwise look like a calibration error.

    Returns:
        The bins.

    Raises:
        ValueError: A prediction is outside 0..1, or only one class has weight and `balanced` is asked for.
    """
    y, p, w = _checked(fake, p_fake, weight)
    if len(p) and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"predictions must be within 0..1, not {p.min()}..{p.max()}")
    if balanced:
        if not _both(y):
            raise ValueError("only one class is there; equal priors need both")
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
    """Measure how far predicted probabilities are from the shares that they meet, on average over bins.

    With few scores a bin it is biased upwards: perfect calibration does not measure 0.

    Args:
        fake: (N,) truth, true for a forgery.
        p_fake: (N,) predictions, 0..1.
        weight: (N,) at least 0; None for ones.
        bins: How many bins of equal width between 0 and 1.
        balanced: Weigh the classes alike (see `reliability`).

    Returns:
        0..1; nan if only one class has weight and `balanced` is asked for.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    y, _, _ = _checked(fake, p_fake, weight)
    if len(y) == 0 or (balanced and not _both(y)):
        return math.nan
    found = reliability(fake, p_fake, weight, bins=bins, balanced=balanced)
    return float(np.sum(found.weight * np.abs(found.p_fake - found.fake_share)))


def bootstrap(
    metric: Metric,
    fake: ArrayLike,
    score: ArrayLike,
    groups: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Measure with a percentile interval from groups drawn with replacement.

    Args:
        metric: Takes truth, scores and weights.
        fake: (N,) truth, true for a forgery.
        score: (N,) scores.
        groups: (N,) what belongs together and is drawn together.
        replicates: How many times to draw.
        seed: Of the draws; the same seed gives the same interval.
        level: The interval's coverage.

    Returns:
        The measure; without an interval if there are fewer than two groups, or if more than half of the draws
        lack a class.

    Source:
        Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; groups as in Field & Welsh,
        "Bootstrapping clustered data", 2007.
    """
    y, s = _truth(fake), np.asarray(score, dtype=np.float64)
    draws = (metric(y, s, weight) for weight in _drawn_weights(groups, replicates, seed))
    return _estimate(metric(y, s, np.ones(len(y))), draws, len(set(groups)), replicates, level)


def bootstrap_difference(
    metric: Metric,
    fake: ArrayLike,
    score: ArrayLike,
    other: ArrayLike,
    groups: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Measure how much better one set of scores is than another on the same clips.

    Both are measured on the same draws, so what the groups do to both alike cancels.

    Args:
        metric: Takes truth, scores and weights.
        fake: (N,) truth, true for a forgery.
        score: (N,) scores of the one.
        other: (N,) scores of the other.
        groups: (N,) what belongs together and is drawn together.
        replicates: How many times to draw.
        seed: Of the draws.
        level: The interval's coverage.

    Returns:
        `metric(score) - metric(other)`; an interval that holds 0 means that no difference is shown.
    """
    y = _truth(fake)
    a, b = np.asarray(score, dtype=np.float64), np.asarray(other, dtype=np.float64)
    ones = np.ones(len(y))
    draws = (metric(y, a, w) - metric(y, b, w) for w in _drawn_weights(groups, replicates, seed))
    return _estimate(metric(y, a, ones) - metric(y, b, ones), draws, len(set(groups)), replicates, level)


def _drawn_weights(groups: Sequence[str], replicates: int, seed: int) -> Iterator[Scores]:
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield times[member].astype(np.float64)


def _estimate(value: float, draws: Iterator[float], groups: int, replicates: int, level: float) -> Estimate:
    found = np.fromiter((draw for draw in draws if not math.isnan(draw)), dtype=np.float64)
    low, high = math.nan, math.nan
    if not math.isnan(value) and 2 * len(found) >= replicates > 0:
        tail = (1.0 - level) / 2
        low, high = (float(end) for end in np.quantile(found, [tail, 1.0 - tail]))
    return Estimate(value=value, low=low, high=high, groups=groups)


def _truth(fake: ArrayLike) -> Labels:
    return np.asarray(fake).astype(np.bool_)


def _checked(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> tuple[Labels, Scores, Scores]:
    y, s = _truth(fake), np.asarray(score, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not y.shape == s.shape == w.shape or y.ndim != 1:
        raise ValueError(
            f"truth, scores and weights must be of one length, not {y.shape}, {s.shape}, {w.shape}"
        )
    if not np.isfinite(s).all():
        raise ValueError("a score is not a finite number")
    # What has no weight in this draw must not count as a class that is there.
    kept = w > 0
    return y[kept], s[kept], w[kept]


def _both(fake: Labels) -> bool:
    return bool(fake.any()) and not bool(fake.all())
