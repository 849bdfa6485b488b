"""Image quality of a face crop: sharpness, noise, brightness and contrast, without a reference.

    quality = measure_quality(crop)
    print(quality.sharpness, quality.brightness)

All are measured in the middle of the crop, where there is face and little background. A crop has a fixed
size, so a small face is blurred in it, and the noise of a large one averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["FaceQuality", "measure_blockiness", "measure_brightness", "measure_chroma", "measure_quality"]

INSET = 0.15
"""Share of the crop left out on each side."""
BLUR_SIZE = 9
"""Length in pixels of the filter that blurs the image again."""
CONTRAST_QUANTILES = (0.05, 0.95)
BLOCK = 8
"""Side in pixels of the blocks of JPEG, and of the smallest transforms of most video codecs."""
# Difference of two Laplacians: zero for planes and edges, sensitive to noise.
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceQuality:
    """Image quality of one face crop.

    Args:
        sharpness: Share of the variation between neighbouring pixels that a blur removes, 0..1; 0 for a
            blurred crop. Noise counts as sharpness.
        noise: Standard deviation of the noise in grey levels of the crop.
        brightness: Mean luma, 0..255.
        contrast: Distance between the 5th and the 95th percentile of luma, 0..255.
    """

    sharpness: float
    noise: float
    brightness: float
    contrast: float


def measure_quality(crop: NDArray[np.uint8]) -> FaceQuality:
    """Measure one crop.

    Args:
        crop: RGB uint8 `(S, S, 3)`, centred on a face.

    Source:
        Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual blur
        metric", 2007; Immerkaer, "Fast noise variance estimation", CVIU 1996.
    """
    luma = _inner_luma(crop).astype(np.float32)
    counts = cv2.calcHist([luma.astype(np.uint8)], [0], None, [256], [0, 256]).ravel()
    low, high = np.searchsorted(np.cumsum(counts), np.array(CONTRAST_QUANTILES) * luma.size)
    return FaceQuality(
        sharpness=_sharpness(luma),
        noise=_noise(luma),
        brightness=float(cv2.mean(luma)[0]),
        contrast=float(high - low),
    )


def measure_brightness(crop: NDArray[np.uint8]) -> float:
    """Return the brightness of one crop alone, 0..255; see `FaceQuality`.

    Args:
        crop: RGB uint8 `(S, S, 3)`, centred on a face.
    """
    return float(cv2.mean(_inner_luma(crop))[0])


def measure_chroma(crop: NDArray[np.uint8]) -> float:
    """Return the mean difference between the largest and the smallest channel of a pixel, 0..255.

    It is 0 for a grey image and about 40 for a face in daylight.

    Args:
        crop: RGB uint8 `(S, S, 3)`, centred on a face.
    """
    red, green, blue = cv2.split(_inner(crop))
    largest = cv2.max(cv2.max(red, green), blue)
    smallest = cv2.min(cv2.min(red, green), blue)
    return float(cv2.mean(cv2.subtract(largest, smallest))[0])


def _inner_luma(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(_inner(crop), cv2.COLOR_RGB2GRAY), np.uint8)


def _inner(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    inset = round(INSET * crop.shape[0])
    return crop[inset : crop.shape[0] - inset, inset : crop.shape[1] - inset]


def _sharpness(luma: NDArray[np.float32]) -> float:
    """Return one minus the blur of Crete et al., of the more blurred of the two directions."""
    sharpness = 1.0
    for size, forward, back in (
        ((BLUR_SIZE, 1), np.s_[:, 1:], np.s_[:, :-1]),
        ((1, BLUR_SIZE), np.s_[1:], np.s_[:-1]),
    ):
        blurred = cv2.blur(luma, size, borderType=cv2.BORDER_REPLICATE)
        variation = cv2.absdiff(luma[forward], luma[back])
        rest = cv2.absdiff(blurred[forward], blurred[back])
        total = float(cv2.sumElems(variation)[0])
        removed = float(np.maximum(variation - rest, 0).sum())
        sharpness = min(sharpness, removed / total if total > 0 else 0.0)
    return sharpness


def _noise(luma: NDArray[np.float32]) -> float:
    """Return the standard deviation of the noise by Immerkaer's method."""
    response = cv2.filter2D(luma, cv2.CV_32F, _NOISE_KERNEL)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * cv2.norm(response, cv2.NORM_L1) / (6 * response.size))


def measure_blockiness(luma: NDArray[np.uint8], left: int, top: int) -> float:
    """Measure the edges of the blocks of a codec in a part of a frame that was not scaled.

    Args:
        luma: uint8 `(H, W)`, at least two blocks wide and high.
        left: Column of its first pixel in the frame, where blocks begin at multiples of `BLOCK`.
        top: Row of its first pixel in the frame.

    Returns:
        Mean difference across the edges of blocks, divided by that of neighbours within them; 1 for none.

    Source:
        Wang, Sheikh & Bovik, "No-reference perceptual quality assessment of JPEG compressed images", 2002.
    """
    ratios = []
    for axis, start in ((1, left), (0, top)):
        steps = cv2.absdiff(*(np.take(luma, range(i, luma.shape[axis] - 1 + i), axis=axis) for i in (1, 0)))
        means = steps.mean(axis=1 - axis)
        at_edge = (np.arange(len(means)) + start + 1) % BLOCK == 0
        inside = float(means[~at_edge].mean())
        ratios.append(float(means[at_edge].mean()) / max(inside, 0.1))
    return float(np.mean(ratios))
