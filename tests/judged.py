"""Judges of flicker whose every weight is the same, for tests of what carries and adds them."""

from __future__ import annotations

from runtime.model.temporal_classifier import TELLS, FlickerJudge
from streams.features.temporal_residuals import FLICKER


def flat_judge(
    weight: float, *, bias: float, window: int, centre: float = 0.0, scale: float = 1.0
) -> FlickerJudge:
    """Make one."""
    return FlickerJudge(
        centre=(centre,) * FLICKER,
        scale=(scale,) * FLICKER,
        weights=(weight,) * TELLS,
        bias=bias,
        surest=9.0,
        window=window,
    )
