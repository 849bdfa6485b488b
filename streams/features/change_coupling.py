"""Change coupling: how closely the changes of a face follow those of its surroundings, from frame to frame.

Cameras and codecs change the whole image at once: an intra frame, a coarser quantiser or a step of the
exposure makes face, hair, neck and background differ from the frame before. A face that is synthesised anew
in every frame changes by itself, so it follows its surroundings less. The level of both depends on the camera
and on motion; how they vary together depends on it far less.

1. Each frame of a short time before the sample is compared with the one before it: dense optical flow removes
   the motion.
2. Two measures (`MEASURES`) of the warped difference are averaged over the regions of the face and over the
   ring around it, and their logarithm is taken.
3. The steps of these logarithms from one comparison to the next are summed up as squares and products
   (`CouplingMeter.measure`). The sums of several samples can be added.
4. From the sums of a window follow the slope and the correlation of the steps of each region against those of
   the ring, and what remains of the former (`coupling_features`).

    meter = CouplingMeter()
    sums = [meter.measure(images, visible) for images in samples]      # float32 (NUM_SUMS,) each
    features = coupling_features(np.sum(sums, axis=0)[None])           # float64 (1, NUM_COUPLING)
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.features.face_regions import REGIONS, Visible, cell_means, enlarged, region_weights, used_part
from streams.features.motion_compensation import MotionCompensation

MEASURES = ("fine", "coarse")
"""Measures per cell, in grey levels: mean absolute difference after the cell means are subtracted; absolute
difference of the cell means."""
SIZE = 120
"""Side of the crops in pixels."""
BLUR_SIGMA = 0.5
"""Standard deviation in pixels of the blur before comparison."""
FLOOR = 0.1
"""Added to each measure before the logarithm, in grey levels."""

_PER_MEASURE = 2 * len(REGIONS) + 1
NUM_SUMS = len(MEASURES) * _PER_MEASURE + 1
"""Number of sums of a sample."""
MIN_STEPS = 4
"""Smallest number of steps in a window from which features are computed."""
VARIANCE_FLOOR = 0.02
"""Added to the variance of the ring's steps, which is not measured exactly."""
SLOPE_LIMITS = -0.5, 2.5
QUIET_RING, LIVELY_RING = 0.25, 0.6
"""Standard deviations of the ring's steps up to which a slope says nothing, and from which it counts in
full."""
DEVIATION_FLOOR = 0.05
"""Added to standard deviations before the logarithm."""

NUM_COUPLING = len(MEASURES) * (4 * len(REGIONS) + 2)
"""Number of features of a window."""
COARSE_RING = NUM_COUPLING - 2
"""Index of the feature that says how much the ring's coarse measure varies."""


class CouplingMeter:
    """Measures the steps of one face."""

    def __init__(self) -> None:
        self._motion = MotionCompensation(
            SIZE, cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        )

    def measure(self, images: Sequence[NDArray[np.uint8]], visible: Visible) -> NDArray[np.float32]:
        """Sum up the steps of a sample.

        Args:
            images: Crops of consecutive frames, oldest first, grey uint8 `(SIZE, SIZE)`: the same part of
                each frame, centred on the face box and `face_regions.MARGIN` times as high.
            visible: Part of the crops that is inside the frame.

        Returns:
            float32 `(NUM_SUMS,)`. For each measure: the sums over all steps of the product of the steps of
            region and ring, for each region; of the square of the region's step, for each region; of the
            square of the ring's step. Last the number of steps. All NaN if there is none, as frames that
            repeat each other have no step, or if too little of a region or of the surroundings is visible.
        """
        levels = self._levels([self._prepared(image) for image in images], visible)
        steps = np.diff(levels, axis=0)
        steps = steps[np.isfinite(steps).all((1, 2))]
        if not len(steps):
            return np.full(NUM_SUMS, np.nan, np.float32)
        regions, ring = steps[..., :-1], steps[..., -1:]
        per_measure = np.concatenate([(regions * ring).sum(0), (regions**2).sum(0), (ring**2).sum(0)], axis=1)
        return np.append(per_measure.ravel(), len(steps)).astype(np.float32)

    def _levels(self, images: Sequence[NDArray[np.uint8]], visible: Visible) -> NDArray[np.float64]:
        """Return the logarithms of the measures of each image against the one before it.

        Returns:
            float64 `(len(images) - 1, measures, regions + 1)`; NaN where two images are the same.
        """
        weights = region_weights(visible)
        levels = np.full((max(0, len(images) - 1), len(MEASURES), len(REGIONS) + 1), np.nan)
        for level, earlier, later in zip(levels, images, images[1:], strict=False):
            if np.array_equal(earlier, later):
                continue
            difference = self._motion.difference(earlier, later, self._motion.flow(earlier, later))
            coarse = cell_means(difference)
            fine = cell_means(cv2.absdiff(difference, enlarged(coarse, difference.shape)))
            measures = np.stack([fine.ravel(), np.abs(coarse).ravel()])
            level[:] = np.log(measures @ weights.T + FLOOR)
        return levels

    @staticmethod
    def _prepared(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.GaussianBlur(used_part(image), (0, 0), BLUR_SIGMA), np.uint8)


def coupling_features(sums: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the coupling of face and surroundings in windows.

    Args:
        sums: Sums over the samples of each window, `(N, NUM_SUMS)`.

    Returns:
        float64 `(N, NUM_COUPLING)`, NaN for windows of less than `MIN_STEPS` steps. For each measure: the
        slope of each region's steps against the ring's; the same less 1, weighed by how lively the ring is;
        the logarithm of the standard deviation of what remains of each region's steps; their correlation
        with the ring's; the logarithm of the standard deviation of the ring's steps; the weight.
    """
    values = np.asarray(sums, np.float64)
    steps = values[:, -1:, None]
    means = values[:, :-1].reshape(len(values), len(MEASURES), _PER_MEASURE) / np.maximum(steps, 1)
    count = len(REGIONS)
    product, square, ring = means[..., :count], means[..., count : 2 * count], means[..., -1:]
    slope = np.clip(product / (ring + VARIANCE_FLOOR), *SLOPE_LIMITS)
    deviation = np.sqrt(ring)
    weight = np.clip((deviation - QUIET_RING) / (LIVELY_RING - QUIET_RING), 0, 1)
    rest = np.sqrt(np.maximum(square - 2 * slope * product + slope**2 * ring, 0))
    correlation = product / np.sqrt(square * ring + 1e-6)
    features = np.concatenate(
        [
            slope,
            weight * (slope - 1),
            np.log(rest + DEVIATION_FLOOR),
            correlation,
            np.log(deviation + DEVIATION_FLOOR),
            weight,
        ],
        axis=-1,
    ).reshape(len(values), NUM_COUPLING)
    features[~(values[:, -1] >= MIN_STEPS)] = np.nan
    return features
