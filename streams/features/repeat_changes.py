"""Repeated pictures: what changes in a face while its surroundings are repeated.

Cameras, virtual cameras, screen recordings and calls repeat pictures to keep a frame rate that is higher than
their own. A picture that is repeated with its face says nothing about how face and surroundings change
together, so it is left out there (`find_repeats`). Where only the surroundings are repeated it says much: a
live face swap is drawn anew in every frame, so its face goes on changing while all else stands still.

After lossy coding a repetition is not identical, but its surroundings change far less than from one picture
to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.features.change_coupling import MEASURES
from streams.features.face_regions import REGIONS, Visible, cell_means, region_weights, used_part

REPEAT_RATIO = 0.25
"""Largest change of repeated surroundings, relative to that from one picture to the next."""
STILLNESS = 1.3
"""Largest change of a repeated face relative to that of its surroundings, both relative to their usual
one."""
MIN_RING = 0.05
"""Smallest relative change of the surroundings that a face is compared with."""
FLOOR = 1e-6
MIN_COMPARISONS = 3
"""Smallest number of comparisons that say what is usual; among fewer only equal images are repetitions."""
MIN_REPEATS = 3
"""Smallest number of repetitions in a window from which features are computed."""

_LEVELS = len(MEASURES) * (len(REGIONS) + 1)
NUM_REPEAT_SUMS = 2 * (_LEVELS + 1)
"""Number of sums of a sample."""
NUM_REPEAT_CHANGES = 2 * len(MEASURES) * len(REGIONS)
"""Number of features of a window."""


class Repetitions(NamedTuple):
    """Repetitions among consecutive images: for each but the first, compared with the one before it."""

    surroundings: NDArray[np.bool_]
    """Whether the surroundings of the face are repeated, `(len(images) - 1,)`."""
    picture: NDArray[np.bool_]
    """Whether the face is repeated as well."""


def find_repeats(images: Sequence[NDArray[np.uint8]], visible: Visible) -> Repetitions:
    """Find the frames that repeat the picture before them, or its surroundings.

    Args:
        images: Crops of consecutive frames, grey uint8 `(S, S)`, S a multiple of `face_regions.GRID`.
        visible: Part of the crops that is inside the frame.
    """
    weights = np.nan_to_num(region_weights(visible))[[0, -1]]
    changes = [
        weights @ cell_means(cv2.absdiff(used_part(earlier), used_part(later)).astype(np.float32)).ravel()
        for earlier, later in pairwise(images)
    ]
    if len(changes) < MIN_COMPARISONS:
        same = np.array([not change.any() for change in changes], bool)
        return Repetitions(same, same)
    # Relative to the second largest change: the largest one may be an intra frame.
    relative = changes / np.maximum(np.sort(changes, axis=0)[-2], FLOOR)
    face, ring = relative.T
    surroundings = ring <= REPEAT_RATIO
    return Repetitions(surroundings, surroundings & (face <= STILLNESS * np.maximum(ring, MIN_RING)))


def repeat_sums(repeated: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum up the changes of a sample at repetitions and at new pictures.

    Args:
        repeated: Logarithms of the changes at repetitions, `(N, measures, regions + 1)`, last the ring.
        others: The same at new pictures.

    Returns:
        float64 `(NUM_REPEAT_SUMS,)`: sums and number at repetitions, then at new pictures.
    """
    return np.concatenate(
        [part for levels in (repeated, others) for part in (levels.sum(0).ravel(), [len(levels)])],
        dtype=np.float64,
    )


def repeat_features(sums: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return what changes at the repetitions of windows.

    Args:
        sums: Sums over the samples of each window, `(N, NUM_REPEAT_SUMS)`.

    Returns:
        float64 `(N, NUM_REPEAT_CHANGES)`: for each measure and region the mean logarithm of its change at
        repetitions relative to that of the ring, then the same less its value at new pictures. NaN for
        windows of less than `MIN_REPEATS` repetitions.
    """
    parts = np.split(np.asarray(sums, np.float64), 2, axis=1)
    means = [
        (part[:, :-1] / np.maximum(part[:, -1:], 1)).reshape(len(sums), len(MEASURES), len(REGIONS) + 1)
        for part in parts
    ]
    at_repeats, at_others = (mean[..., :-1] - mean[..., -1:] for mean in means)
    features = np.stack([at_repeats, at_repeats - at_others], axis=1).reshape(len(sums), NUM_REPEAT_CHANGES)
    features[~(parts[0][:, -1] >= MIN_REPEATS)] = np.nan
    return np.asarray(features)
