"""Changes of a face and of its surroundings from frame to frame, in a short time before each sample.

Each frame is compared with the one before it, after dense optical flow has removed the motion. What follows
from the changes of a window is whether face and surroundings change together
(`streams.features.change_coupling`), whether a change continues in the next frame
(`streams.features.change_persistence`), and whether the face changes where its surroundings are repeated
(`streams.features.repeat_changes`). All need every frame of the source, so sums are kept of each sample
instead of frames:

    meter = ChangeMeter()
    sums = [meter.measure(images, visible) for images in samples]      # float32 (NUM_SUMS,) each
    features = change_features(np.sum(sums, axis=0)[None])             # float64 (1, NUM_CHANGES)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.features.change_coupling import (
    MEASURES,
    NUM_COUPLING,
    NUM_COUPLING_SUMS,
    coupling_features,
    coupling_sums,
)
from streams.features.change_persistence import (
    NUM_PERSISTENCE,
    NUM_PERSISTENCE_SUMS,
    persistence_features,
    persistence_sums,
)
from streams.features.face_regions import REGIONS, Visible, cell_means, enlarged, region_weights, used_part
from streams.features.motion_compensation import MotionCompensation
from streams.features.repeat_changes import (
    NUM_REPEAT_CHANGES,
    NUM_REPEAT_SUMS,
    find_repeats,
    repeat_features,
    repeat_sums,
)

SIZE = 120
"""Side of the crops in pixels."""
BLUR_SIGMA = 0.5
"""Standard deviation in pixels of the blur before comparison."""
FLOOR = 0.1
"""Added to each measure before the logarithm, in grey levels."""
BROAD = 7
"""Cells per side of the blocks of the measure `broad`, half the height of a face."""
PERSISTENCE_BLOCK = 3
"""Cells per side of the blocks whose changes are correlated; smaller ones contain more coding noise."""
MIN_STEPS = 4
"""Smallest number of steps in a window from which features are computed."""

NUM_SUMS = NUM_COUPLING_SUMS + NUM_PERSISTENCE_SUMS + NUM_REPEAT_SUMS + 1
"""Number of sums of a sample: those of the coupling, of the persistence and of the repetitions, and the
number of steps."""
NUM_CHANGES = NUM_COUPLING + NUM_PERSISTENCE + NUM_REPEAT_CHANGES
"""Number of features of a window."""


class ChangeMeter:
    """Measures the changes of one face."""

    def __init__(self) -> None:
        self._motion = MotionCompensation(
            SIZE, cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        )

    def measure(self, images: Sequence[NDArray[np.uint8]], visible: Visible) -> NDArray[np.float32]:
        """Sum up the changes before a sample.

        Args:
            images: Crops of consecutive frames, oldest first, grey uint8 `(SIZE, SIZE)`: the same part of
                each frame, centred on the face box and `face_regions.MARGIN` times as high.
            visible: Part of the crops that is inside the frame.

        Returns:
            float32 `(NUM_SUMS,)`; a step is one from a comparison to the next. All NaN if there is none, as
            frames that repeat each other are not compared, or if too little of a region or of the
            surroundings is visible.
        """
        weights = region_weights(visible)
        changes, levels = self._compare([_prepared(image) for image in images], weights)
        repeats = find_repeats(images, visible)
        repetition = repeat_sums(levels[repeats.surroundings], levels[~repeats.surroundings])
        changes, levels = changes[~repeats.picture], levels[~repeats.picture]
        steps = np.diff(levels, axis=0)
        valid = np.isfinite(steps).all((1, 2))
        if not valid.any():
            return np.full(NUM_SUMS, np.nan, np.float32)
        coupling = coupling_sums(steps[valid])
        persistence = persistence_sums(changes[:-1][valid], changes[1:][valid], weights)
        return np.concatenate(
            [coupling, persistence, repetition, [np.count_nonzero(valid)]], dtype=np.float32
        )

    def _compare(
        self, images: Sequence[NDArray[np.uint8]], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Compare each image with the one before it.

        Returns:
            Signed changes of the blocks around the cells, `(len(images) - 1, cells)`, and the logarithms of
            the measures, `(len(images) - 1, measures, regions + 1)`; NaN where too little is visible.
        """
        count = max(0, len(images) - 1)
        changes = np.full((count, weights.shape[1]), np.nan, np.float32)
        levels = np.full((count, len(MEASURES), len(REGIONS) + 1), np.nan)
        for i, (earlier, later) in enumerate(pairwise(images)):
            difference = self._motion.difference(earlier, later, self._motion.flow(earlier, later))
            coarse = cell_means(difference)
            fine = cell_means(cv2.absdiff(difference, enlarged(coarse, difference.shape)))
            measures = np.stack([fine, np.abs(coarse), np.abs(cv2.blur(coarse, (BROAD, BROAD)))])
            changes[i] = cv2.blur(coarse, (PERSISTENCE_BLOCK, PERSISTENCE_BLOCK)).ravel()
            levels[i] = np.log(measures.reshape(len(MEASURES), -1) @ weights.T + FLOOR)
        return changes, levels


def change_features(sums: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how face and surroundings change in windows.

    Args:
        sums: Sums over the samples of each window, `(N, NUM_SUMS)`.

    Returns:
        float64 `(N, NUM_CHANGES)`: the features of the coupling, then those of the persistence. NaN for
        windows of less than `MIN_STEPS` steps.
    """
    starts = np.cumsum([NUM_COUPLING_SUMS, NUM_PERSISTENCE_SUMS, NUM_REPEAT_SUMS])
    coupling, persistence, repetition, steps = np.split(np.asarray(sums, np.float64), starts, axis=1)
    features = np.concatenate(
        [
            coupling_features(coupling, steps[:, 0]),
            persistence_features(persistence, steps[:, 0]),
            repeat_features(repetition),
        ],
        axis=1,
    )
    features[~(steps[:, 0] >= MIN_STEPS)] = np.nan
    return features


def _prepared(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(used_part(image), (0, 0), BLUR_SIGMA), np.uint8)
