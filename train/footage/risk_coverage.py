"""Risk and coverage: how many verdicts would be wrong if only the best windows were kept.

    curve = risk_coverage(footage, "brightness")
    curve.coverage, curve.risk

Source: El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from train.footage.figures import ScannedFootage
from train.footage.video_record import WindowRecord

MIN_COVERAGE = 0.1
"""Share of the windows below which the risk is not stated: too few are left."""

ORDERS: Mapping[str, Callable[[WindowRecord], float]] = MappingProxyType(
    {
        "confidence": lambda window: abs(window.p_fake - 0.5),
        "face height": lambda window: window.face_height,
        "brightness": lambda window: window.brightness,
        "sharpness": lambda window: window.sharpness,
        "blockiness": lambda window: -window.blockiness,
        "yaw": lambda window: -window.yaw,
    }
)
"""Measures by which windows are ordered; windows with low values are given up first."""


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Risk of the windows that are kept, by their share.

    Args:
        coverage: Share of the windows that is kept, `(N,)`, falling from 1.
        risk: Balanced error of these windows at even odds, `(N,)`, 0..1: the mean of the share of the real
            windows called fake and of the fake ones called real.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(footage: ScannedFootage, order: str) -> RiskCoverage:
    """Compute the risk by coverage if the windows with the lowest values of a measure are given up first.

    Every video has the same weight, whatever its number of windows. Windows of equal value are given up
    together.

    Args:
        footage: Videos with their records.
        order: One of `ORDERS`.

    Returns:
        The curve; empty if there are no windows of either class. It ends where the coverage is below
        `MIN_COVERAGE`, or where a class has no window left.
    """
    measure = ORDERS[order]
    rows = [
        (measure(window), 1 / len(record.windows), video.fake, (window.p_fake >= 0.5) != video.fake)
        for video, record in zip(footage.videos, footage.records, strict=True)
        for window in record.windows
    ]
    values, weights, fake, wrong = np.array(sorted(rows, reverse=True), np.float64).reshape(-1, 4).T
    of_class = weights * np.stack([1 - fake, fake])
    weight, errors = of_class.cumsum(1), (of_class * wrong).cumsum(1)
    coverage = weight.sum(0) / max(weights.sum(), 1e-9)
    last_of_value = np.append(values[1:] != values[:-1], True)[: len(values)]
    kept = last_of_value & (weight.min(0) > 0) & (coverage >= MIN_COVERAGE)
    risk = (errors[:, kept] / weight[:, kept]).mean(0)
    return RiskCoverage(coverage=coverage[kept][::-1], risk=risk[::-1])
