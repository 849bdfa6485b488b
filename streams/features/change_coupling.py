"""Change coupling: how closely the changes of a face follow those of its surroundings, from frame to frame.

Cameras and codecs change the whole image at once: an intra frame, a coarser quantiser or a step of the
exposure makes face, hair, neck and background differ from the frame before. A face that is synthesised anew
in every frame changes by itself, so it follows its surroundings less. The level of both depends on the camera
and on motion; how they vary together depends on it far less.

1. `streams.features.frame_changes` measures how much the regions of the face and the ring around it differ
   from the frame before, as logarithms.
2. The steps of these logarithms from one comparison to the next are summed up as squares and products
   (`coupling_sums`). The sums of several samples can be added.
3. From the sums of a window follow the slope and the correlation of the steps of each region against those of
   the ring, and what remains of the former (`coupling_features`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.features.face_regions import REGIONS

MEASURES = ("fine", "coarse", "broad")
"""Measures of the change of a cell, in grey levels: mean absolute difference after the cell means are
subtracted; absolute difference of the cell means; the same of the mean of the surrounding
`frame_changes.BROAD` cells per side."""

_PER_MEASURE = 2 * len(REGIONS) + 1
NUM_COUPLING_SUMS = len(MEASURES) * _PER_MEASURE
"""Number of sums of a sample."""
VARIANCE_FLOOR = 0.02
"""Added to the variance of the ring's steps, which is not measured exactly."""
SLOPE_LIMITS = -0.5, 2.5
QUIET_RING, LIVELY_RING = 0.25, 0.6
"""Standard deviations of the ring's steps up to which a slope says nothing, and from which it counts in
full."""
DEVIATION_FLOOR = 0.05
"""Added to standard deviations before the logarithm."""

_FEATURES_PER_MEASURE = 4 * len(REGIONS) + 2
NUM_COUPLING = len(MEASURES) * _FEATURES_PER_MEASURE
"""Number of features of a window."""
COARSE_RING = (MEASURES.index("coarse") + 1) * _FEATURES_PER_MEASURE - 2
"""Index of the feature that says how much the ring's coarse measure varies."""


def coupling_sums(steps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum up the steps of a sample.

    Args:
        steps: Steps of the logarithms, `(N, measures, regions + 1)`, last the ring.

    Returns:
        float64 `(NUM_COUPLING_SUMS,)`. For each measure: the sums over all steps of the product of the steps
        of region and ring, for each region; of the square of the region's step, for each region; of the
        square of the ring's step.
    """
    regions, ring = steps[..., :-1], steps[..., -1:]
    sums = [(regions * ring).sum(0), (regions**2).sum(0), (ring**2).sum(0)]
    return np.concatenate(sums, axis=1, dtype=np.float64).ravel()


def coupling_features(sums: NDArray[np.floating], steps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the coupling of face and surroundings in windows.

    Args:
        sums: Sums over the samples of each window, `(N, NUM_COUPLING_SUMS)`.
        steps: Number of steps in each window, `(N,)`.

    Returns:
        float64 `(N, NUM_COUPLING)`. For each measure: the slope of each region's steps against the ring's;
        the same less 1, weighed by how lively the ring is; the logarithm of the standard deviation of what
        remains of each region's steps; their correlation with the ring's; the logarithm of the standard
        deviation of the ring's steps; the weight.
    """
    means = np.asarray(sums, np.float64) / np.maximum(steps, 1)[:, None]
    means = means.reshape(len(sums), len(MEASURES), _PER_MEASURE)
    count = len(REGIONS)
    product, square, ring = means[..., :count], means[..., count : 2 * count], means[..., -1:]
    slope = np.clip(product / (ring + VARIANCE_FLOOR), *SLOPE_LIMITS)
    deviation = np.sqrt(ring)
    weight = np.clip((deviation - QUIET_RING) / (LIVELY_RING - QUIET_RING), 0, 1)
    rest = np.sqrt(np.maximum(square - 2 * slope * product + slope**2 * ring, 0))
    correlation = product / np.sqrt(square * ring + 1e-6)
    return np.concatenate(
        [
            slope,
            weight * (slope - 1),
            np.log(rest + DEVIATION_FLOOR),
            correlation,
            np.log(deviation + DEVIATION_FLOOR),
            weight,
        ],
        axis=-1,
    ).reshape(len(sums), NUM_COUPLING)
