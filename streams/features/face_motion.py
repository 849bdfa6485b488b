"""Motion within a face: the displacement of its parts relative to each other in half a second.

A still image has none, even if it is coded again, has sensor noise, or is dimmed, panned, zoomed or held in a
hand. A real face has some, even if the person sits still.

    meter = MotionMeter()
    for crop, (x, y, side) in samples:
        motion.append(meter.measure(crop, (x, y, side)))
    moves(motion)

Method: the face is divided into blocks; the displacement of each since an earlier sample is the least-squares
solution of the brightness constancy equation with gain and offset, so that a change of exposure is no motion.
Then the similarity transform (shift, rotation, zoom) that explains most of it is removed, and what noise
alone would cause is subtracted.

Source: Lucas, Kanade, "An Iterative Image Registration Technique with an Application to Stereo Vision",
IJCAI 1981; Negahdaripour, "Revised Definition of Optical Flow", PAMI 1998 (gain and offset).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_LAG", "MIN_MOTION", "MIN_STILL_FILL", "MotionMeter", "clip_motion", "is_still", "moves"]

MAX_LAG = 4
"""Distance in samples between the crops that are compared; less at the start of a face."""
MIN_MOTION = 0.15
"""Motion in pixels at `SIZE` below which a face is classified as a still image.

Measured over windows of 16 samples: 68 stills in 17 kinds of coding, noise, flicker and camera movement at
most 0.13, all but one at most 0.09; 33 real and forged faces at least 0.25, but for moments of one person who
sits still, 0.16.
"""
MIN_STILL_FILL = 0.5
"""Share of the window that must be filled before a face can be classified as a still image, because a person
may hold still for half a second."""

QUANTILE = 0.75
"""Quantile of the motion over a window that is compared; a single damaged sample does not change it."""

SIZE = 112
"""Side in pixels at which crops are compared."""
BLOCKS = 4
"""Blocks per side."""
INSET = 16
"""Pixels left out on each side, where the background is visible."""
BLUR_SIGMA = 2.0
"""Standard deviation in pixels of the blur before comparison, which suppresses noise."""
MAX_NOISE = 0.16
"""Limit in square pixels of the noise that is subtracted, because fast motion causes large errors too."""
# Grey levels squared per pixel. Blocks without texture report no displacement, and the gain stays near 1.
_PRIOR = (0.25, 0.25, 100.0, 1e-6)

Square = tuple[int, int, int]
"""x, y and side in pixels of the frame."""


class MotionMeter:
    """Motion within one face; crops are passed in the order of time."""

    def __init__(self) -> None:
        self._previous: deque[tuple[NDArray[np.float32], Square]] = deque(maxlen=MAX_LAG)

    def measure(self, crop: NDArray[np.uint8], square: Square) -> float:
        """Compare a crop with the one `MAX_LAG` samples earlier, or with the oldest one.

        Args:
            crop: RGB uint8 `(H, H, 3)`.
            square: Part of the frame that the crop shows.

        Returns:
            Root mean square of the displacements within the face, in pixels at `SIZE`. NaN for the first
            crop.
        """
        interpolation = cv2.INTER_AREA if crop.shape[0] > SIZE else cv2.INTER_LINEAR
        grey = cv2.resize(
            cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (SIZE, SIZE), interpolation=interpolation
        ).astype(np.float32)
        current = np.asarray(cv2.GaussianBlur(grey, (0, 0), BLUR_SIGMA), np.float32)
        motion = float("nan")
        if self._previous:
            earlier, earlier_square = self._previous[0]
            motion = _motion(earlier, _aligned(current, square, earlier_square))
        self._previous.append((current, square))
        return motion

    def clear(self) -> None:
        """Forget the previous crops, because the next one does not follow them."""
        self._previous.clear()


def clip_motion(crops: NDArray[np.uint8]) -> list[float]:
    """Measure the motion of a clip whose crops all show the same part of the frame.

    Args:
        crops: RGB uint8 `(T, H, H, 3)`, oldest first.

    Returns:
        One value per crop; see `MotionMeter.measure`.
    """
    meter = MotionMeter()
    return [meter.measure(crop, (0, 0, crop.shape[0])) for crop in crops]


def moves(motion: Iterable[float]) -> bool:
    """Return whether a face moves within a window.

    Args:
        motion: Motion of the samples of the window, oldest first, at least two. Where possible, motion since
            crops before the window is ignored.
    """
    values = np.array(list(motion))
    return bool(np.quantile(values[min(MAX_LAG, len(values) - 1) :], QUANTILE) >= MIN_MOTION)


def is_still(motion: Sequence[float], *, window: int) -> bool | None:
    """Return whether a face is a still image, in which there is no temporal evidence.

    Args:
        motion: Motion of the samples in the window, oldest first.
        window: Number of samples in a full window.

    Returns:
        None while the window is too short to decide. Only a window for which it is False has a score.
    """
    if len(motion) > 1 and moves(motion):
        return False
    return True if len(motion) >= MIN_STILL_FILL * window else None


def _aligned(image: NDArray[np.float32], square: Square, target: Square) -> NDArray[np.float32]:
    """Resample a crop of one square of the frame as a crop of another."""
    zoom = target[2] / square[2]
    right, down = ((target[axis] - square[axis]) / square[2] * SIZE for axis in (0, 1))
    # Half a pixel, because coordinates are those of the pixels' centres.
    half = 0.5 * zoom - 0.5
    inverse = np.array([[zoom, 0, right + half], [0, zoom, down + half]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, inverse, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def _motion(earlier: NDArray[np.float32], current: NDArray[np.float32]) -> float:
    """Return the motion between two aligned images."""
    mean = (earlier + current) / 2
    right, down = (cv2.Sobel(mean, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    level = _blocks(earlier)
    level -= level.mean(1, keepdims=True)
    terms = np.stack(
        [_blocks(np.asarray(right)), _blocks(np.asarray(down)), level, np.ones_like(level)], axis=1
    )
    change = _blocks(current - earlier)
    normal = terms @ terms.transpose(0, 2, 1) + change.shape[1] * np.diag(_PRIOR)
    inverse = np.linalg.inv(normal)
    solution = (inverse @ (terms @ change[..., None]))[..., 0]
    error = (change - (solution[:, None] @ terms)[:, 0]) ** 2
    variance = error.mean(1) * (inverse[:, 0, 0] + inverse[:, 1, 1])
    # Neighbouring pixels are not independent after the blur: one value for each 4 pi sigma².
    noise = 4 * np.pi * BLUR_SIGMA**2 * float(variance.mean())
    displacements = -solution[:, :2].T.ravel()
    within = displacements - _similarity() @ displacements
    squares = 2 * float((within**2).mean())
    return float(max(0.0, squares - min(noise, MAX_NOISE)) ** 0.5)


def _blocks(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the pixels of each block, `(BLOCKS², pixels)`."""
    side = (SIZE - 2 * INSET) // BLOCKS
    inner = image[INSET : INSET + BLOCKS * side, INSET : INSET + BLOCKS * side]
    blocks = inner.reshape(BLOCKS, side, BLOCKS, side).transpose(0, 2, 1, 3)
    return blocks.reshape(BLOCKS**2, side**2).astype(np.float64)


@lru_cache(maxsize=1)
def _similarity() -> NDArray[np.float64]:
    """Return the projection onto the displacements of the blocks by shift, rotation and zoom."""
    steps = np.arange(BLOCKS) - (BLOCKS - 1) / 2
    down, right = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    one, zero = np.ones(BLOCKS**2), np.zeros(BLOCKS**2)
    basis = np.stack([np.r_[one, zero], np.r_[zero, one], np.r_[right, down], np.r_[-down, right]], axis=1)
    return basis @ np.linalg.pinv(basis)
