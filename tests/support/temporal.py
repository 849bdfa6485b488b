"""Temporal classifier with equal weights, and contexts made of crops, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.model.temporal_classifier import (
    NUM_FEATURES,
    NUM_SAMPLE_FEATURES,
    NUM_STANDARDISED,
    Regression,
    TemporalClassifier,
)
from streams.features import frame_changes
from streams.features.frame_changes import NUM_SUMS
from streams.features.temporal_residuals import NUM_RATIOS, SIZE, FaceContext, ResidualMeter


def uniform_temporal_classifier(
    weight: float, *, bias: float, window: int, centre: float = 0.0, scale: float = 1.0
) -> TemporalClassifier:
    """Return a classifier whose weights are all the same."""
    return TemporalClassifier(
        centre=(centre,) * NUM_STANDARDISED,
        scale=(scale,) * NUM_STANDARDISED,
        with_frames=_uniform(NUM_FEATURES, weight, bias),
        without_frames=_uniform(NUM_SAMPLE_FEATURES, weight, bias),
        max_logit=9.0,
        window=window,
    )


def _uniform(length: int, weight: float, bias: float) -> Regression:
    return Regression(means=(0.0,) * length, weights=(weight,) * length, bias=bias)


def random_windows(count: int, samples: int, seed: int = 1) -> NDArray[np.float32]:
    """Return random residuals of windows, float32 (count, samples, NUM_RESIDUALS): sums of possible steps."""
    rng = np.random.default_rng(seed)
    ratios = rng.normal(0, 1, (count, samples, NUM_RATIOS))
    sums = rng.uniform(0.2, 2, (count, samples, NUM_SUMS))
    sums[..., -1] = 5
    return np.concatenate([ratios, sums], axis=-1).astype(np.float32)


def context_of(crop: NDArray[np.uint8], earlier: Sequence[NDArray[np.uint8]] = ()) -> FaceContext:
    """Return a crop of any size as the context of a face, with the crops of the frames before it."""
    rgb = [np.asarray(cv2.resize(image, (SIZE, SIZE)), np.uint8) for image in (*earlier, crop)]
    history = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (frame_changes.SIZE, frame_changes.SIZE))
        for image in rgb
    ]
    return FaceContext(
        current=rgb[-1],
        previous=rgb[-2] if earlier else None,
        history=tuple(np.asarray(image, np.uint8) for image in history) if earlier else (),
    )


def residuals_of(crops: NDArray[np.uint8], *, every: int = 1) -> NDArray[np.float32]:
    """Return the temporal residuals of samples, float32 (T, NUM_RESIDUALS).

    Args:
        crops: Crops of consecutive frames.
        every: Number of frames from one sample to the next; with 1 there are none between two samples.
    """
    meter = ResidualMeter()
    earlier = 2 * every if every > 1 else 0
    return np.stack(
        [
            meter.measure(context_of(crops[at], list(crops[max(0, at - earlier) : at])))
            for at in range(every - 1, len(crops), every)
        ]
    )
