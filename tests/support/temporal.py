"""Temporal classifier with equal weights, and contexts made of crops, for tests."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.model.temporal_classifier import NUM_FEATURES, TemporalClassifier
from streams.features.temporal_residuals import NUM_RESIDUALS, SIZE, FaceContext, ResidualMeter


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


def context_of(crop: NDArray[np.uint8]) -> FaceContext:
    """Return a crop of any size as the context of a face, without a frame before it."""
    return FaceContext(current=np.asarray(cv2.resize(crop, (SIZE, SIZE)), np.uint8))


def residuals_of(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the temporal residuals of consecutive crops, float32 (T, NUM_RESIDUALS)."""
    meter = ResidualMeter()
    return np.stack([meter.measure(context_of(crop)) for crop in crops])
