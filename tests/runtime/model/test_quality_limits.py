"""Tests of the limits of image quality."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from runtime.messages import UncertainReason
from runtime.model.quality_limits import QualityGate, QualityLimits, SampleQuality

GOOD: dict[str, float] = {"height": 120, "roll": 3, "yaw": 8, "brightness": 110, "chroma": 40}
CASES: list[tuple[UncertainReason, str, float, float, float]] = [
    ("turned", "roll", -175, 47, 44),
    ("turned_away", "yaw", 75, -57, 50),
    ("too_small", "height", 20, 27, 30),
    ("dark", "brightness", 8, 21, 25),
    ("no_colour", "chroma", 0, 3.2, 4),
]


def sample(**values: float) -> SampleQuality:
    return SampleQuality(**{**GOOD, **values})


@pytest.mark.parametrize(("reason", "name", "bad", "near", "good"), CASES)
def test_each_limit(reason: UncertainReason, name: str, bad: float, near: float, good: float) -> None:
    """A measure beyond its limit is the reason; it ends only at some distance from the limit."""
    limits = QualityLimits()
    assert limits.reason(sample(), None) is None
    assert limits.reason(sample(**{name: bad}), None) == reason
    assert limits.reason(sample(**{name: near}), None) is None
    assert limits.reason(sample(**{name: near}), reason) == reason
    assert limits.reason(sample(**{name: good}), reason) is None


def test_the_median_decides() -> None:
    """A few bad samples change nothing; most of them do; the next window of good ones ends the reason."""
    gate = QualityGate(QualityLimits(), samples=8)
    reasons = []
    for brightness in [100] * 8 + [5] * 3 + [100] * 8 + [5] * 8 + [100] * 8:
        gate.add(sample(brightness=brightness))
        reasons.append(gate.reason)
    assert reasons[:19] == [None] * 19
    assert reasons[26] == "dark"
    assert reasons[-1] is None
    changes = sum(before != after for before, after in pairwise(reasons))
    assert changes == 2
    gate.add(sample(yaw=90))
    gate.clear()
    assert gate.reason is None


def test_rotation_beyond_180_degrees() -> None:
    """An upside-down face whose roll changes its sign is not upright on average."""
    gate = QualityGate(QualityLimits(), samples=8)
    for roll in (178, -179, 177, -178):
        gate.add(sample(roll=roll))
    assert gate.reason == "turned"


@pytest.mark.parametrize("values", [{"min_height": 0}, {"hysteresis": 1}, {"max_yaw": -1}])
def test_invalid_limits(values: dict[str, Any]) -> None:
    """A limit must be positive."""
    with pytest.raises(ValueError, match="must be"):
        QualityLimits(**values)
