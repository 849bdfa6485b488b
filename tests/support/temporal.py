"""Temporal classifier with equal weights, for tests of storing it and of adding its logits."""

from __future__ import annotations

from runtime.model.temporal_classifier import NUM_FEATURES, TemporalClassifier
from streams.features.temporal_residuals import NUM_RESIDUALS


def uniform_temporal_classifier(
    weight: float, *, bias: float, window: int, centre: float = 0.0, scale: float = 1.0
) -> TemporalClassifier:
    """Return a classifier whose weights are all the same."""
    return TemporalClassifier(
        centre=(centre,) * NUM_RESIDUALS,
        scale=(scale,) * NUM_RESIDUALS,
        weights=(weight,) * NUM_FEATURES,
        bias=bias,
        max_logit=9.0,
        window=window,
    )
