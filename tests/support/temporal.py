"""Judges of flicker whose every weight is the same, for tests of what carries and adds them."""

from __future__ import annotations

from runtime.model.temporal_classifier import TEMPORAL_FEATURES, TemporalClassifier
from streams.features.temporal_residuals import NUM_RESIDUALS


def flat_judge(
    weight: float, *, bias: float, window: int, centre: float = 0.0, scale: float = 1.0
) -> TemporalClassifier:
    """Make one."""
    return TemporalClassifier(
        centre=(centre,) * NUM_RESIDUALS,
        scale=(scale,) * NUM_RESIDUALS,
        weights=(weight,) * TEMPORAL_FEATURES,
        bias=bias,
        max_logit=9.0,
        window=window,
    )
