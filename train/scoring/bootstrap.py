"""Bootstrap intervals of metrics, drawn by group.

A group is an original video with all of its fakes. Errors within a group are correlated, so an
interval from draws of single clips would be too narrow.

    estimate = bootstrap(auc, fake, logits, groups, replicates=1000, seed=0)
    print(estimate)                                       # 0.972 [0.943, 1.000]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Metric(Protocol):
    """Function from labels, scores and weights to a metric."""

    def __call__(self, fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        """Compute the metric.

        Args:
            fake: Labels `(N,)`, true for a fake.
            score: Scores `(N,)`, higher for more likely fake.
            weight: Weights `(N,)`, at least 0; None for ones.

        Returns:
            The metric; nan where it is undefined.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Number and seed of the bootstrap draws.

    Args:
        replicates: Number of draws.
        seed: Seed of the draws.

    Raises:
        ValueError: `replicates` is below 1.
    """

    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 1:
            raise ValueError(f"replicates must be at least 1, not {self.replicates}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric and its bootstrap interval.

    Args:
        value: The metric on all scores; nan where it is undefined, for example with one class only.
        low: Lower end of the interval; nan where there is none.
        high: Upper end of the interval; nan where there is none.
        groups: Number of groups that were drawn from.
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
    """Compute a metric with a percentile interval over groups drawn with replacement.

    Args:
        metric: The metric.
        fake: Labels `(N,)`, true for a fake.
        score: Scores `(N,)`.
        groups: Group of each score, `(N,)`.
        replicates: Number of draws.
        seed: Seed of the draws; the same seed gives the same interval.
        level: Coverage of the interval, 0..1.

    Returns:
        The estimate. It has no interval if there are fewer than two groups, or if more than half of the draws
        lack a class.

    Source:
        Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; groups as in Field & Welsh,
        "Bootstrapping clustered data", 2007.
    """
    y, s = np.asarray(fake).astype(np.bool_), np.asarray(score, dtype=np.float64)
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
    """Compute the difference of a metric between two sets of scores of the same clips.

    Both are measured on the same draws, so that effects of a group on both cancel out.

    Args:
        metric: The metric.
        fake: Labels `(N,)`, true for a fake.
        score: Scores `(N,)` of the first model.
        other: Scores `(N,)` of the second model.
        groups: Group of each score, `(N,)`.
        replicates: Number of draws.
        seed: Seed of the draws.
        level: Coverage of the interval, 0..1.

    Returns:
        `metric(score) - metric(other)`. An interval that contains 0 shows no difference.
    """
    y = np.asarray(fake).astype(np.bool_)
    a, b = np.asarray(score, dtype=np.float64), np.asarray(other, dtype=np.float64)
    ones = np.ones(len(y))
    draws = (metric(y, a, w) - metric(y, b, w) for w in _drawn_weights(groups, replicates, seed))
    return _estimate(metric(y, a, ones) - metric(y, b, ones), draws, len(set(groups)), replicates, level)


def _drawn_weights(groups: Sequence[str], replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    # A group that was drawn twice has weight 2: cheaper than copies of its scores.
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield times[member].astype(np.float64)


def _estimate(value: float, draws: Iterator[float], groups: int, replicates: int, level: float) -> Estimate:
    defined = np.fromiter((draw for draw in draws if not math.isnan(draw)), dtype=np.float64)
    low, high = math.nan, math.nan
    if not math.isnan(value) and 2 * len(defined) >= replicates > 0:
        tail = (1.0 - level) / 2
        low, high = (float(end) for end in np.quantile(defined, [tail, 1.0 - tail]))
    return Estimate(value=value, low=low, high=high, groups=groups)
