"""Temporal residuals: the change of a face from crop to crop after its motion is removed.

Most deepfakes are synthesised frame by frame, so light, colour and shape of the synthesised region vary in
time where those of a real face do not. Each crop is compared with the crops one and two samples before it:

1. Dense optical flow from the earlier crop to the current one is computed.
2. The current crop is warped back onto the earlier one, which removes the motion of the face.
3. Six measures (`MEASURES`) are computed in a 14 x 14 grid of cells, from the warped difference, the texture
   and the flow itself.
4. Each measure is averaged over six regions of the face (`REGIONS`), and its logarithm is returned.

    meter = ResidualMeter(margin=1.02)
    for crop in crops:
        residuals = meter.measure(crop)         # float32 (NUM_RESIDUALS,)

Sources: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (optical flow); Zheng et
al., "Exploring Temporal Coherence for More General Video Face Forgery Detection", ICCV 2021 (temporal
incoherence as a cue).
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LAGS = (1, 2)
"""Distances, in samples, between the crops that are compared."""
MEASURES = ("fine", "coarse", "texture", "motion", "warp", "colour")
"""Measures per cell:

fine      mean absolute difference after the cell means are subtracted, in grey levels
coarse    absolute difference of the cell means, in grey levels
texture   high frequencies of the earlier crop, in grey levels; a reference, not a difference
motion    absolute mean flow, in pixels at `SIZE`
warp      mean absolute deviation of the flow from the cell means, in pixels at `SIZE`
colour    difference of the cell means without its grey part, in grey levels
"""
REGIONS = ("inner", "face", "edge", "mouth", "eyes", "nose")
"""Regions of the crop over which the cells are averaged; see `_region_weights`."""
NUM_RESIDUALS = len(LAGS) * len(MEASURES) * len(REGIONS)

SIZE = 112
"""Side in pixels at which crops are compared, so that the result does not depend on a model's input size."""
GRID = 14
"""Cells per side of the grid."""
BLUR_SIGMA = 0.8
"""Standard deviation in pixels of the blur before comparison, which suppresses sensor and coding noise."""
FLOORS = np.array([0.1, 0.1, 0.1, 0.1, 0.02, 0.1], np.float32)
"""Added to each measure before the logarithm, in the measure's unit; smaller values carry no information."""
FACE_ASPECT = 0.76
"""Width of a face box divided by its height."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Residuals = NDArray[np.float32]


class _Crop(NamedTuple):
    rgb: NDArray[np.uint8]
    grey: NDArray[np.uint8]


class ResidualMeter:
    """Temporal residuals of one face; crops are passed in the order of time.

    Args:
        margin: Side of the crops divided by the height of the face box.
    """

    def __init__(self, margin: float) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._weights = _region_weights(margin)
        self._previous: deque[_Crop] = deque(maxlen=max(LAGS))
        self._pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).astype(np.float32)

    def measure(self, crop: NDArray[np.uint8]) -> Residuals:
        """Compare a crop with the previous ones.

        Args:
            crop: RGB uint8 `(H, H, 3)`.

        Returns:
            float32 `(NUM_RESIDUALS,)`, natural logarithms, ordered by lag, then measure, then region. NaN for
            a lag without an earlier crop.
        """
        interpolation = cv2.INTER_AREA if crop.shape[0] > SIZE else cv2.INTER_LINEAR
        resized = cv2.resize(crop, (SIZE, SIZE), interpolation=interpolation)
        rgb = cv2.GaussianBlur(resized, (0, 0), BLUR_SIGMA)
        current = _Crop(np.asarray(rgb, np.uint8), np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)))
        residuals = [
            self._compare(self._previous[-lag], current)
            if lag <= len(self._previous)
            else np.full(NUM_RESIDUALS // len(LAGS), np.nan, np.float32)
            for lag in LAGS
        ]
        self._previous.append(current)
        return np.concatenate(residuals)

    def clear(self) -> None:
        """Forget the previous crops, because the next one does not follow them."""
        self._previous.clear()

    def _compare(self, earlier: _Crop, current: _Crop) -> Residuals:
        """Return the residuals of one lag, float32 (measures * regions,)."""
        flow = self._flow.calc(earlier.grey, current.grey, None)  # type: ignore[call-overload]
        source = self._pixels + flow
        warped = cv2.remap(  # type: ignore[call-overload]
            current.rgb, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        difference = warped.astype(np.float32) - earlier.rgb
        cell_difference = _cell_means(difference)
        grey_difference = cell_difference @ LUMA
        smooth = cv2.GaussianBlur(earlier.grey, (5, 5), 0)
        texture = cv2.absdiff(earlier.grey, smooth).astype(np.float32)
        cell_flow = _cell_means(flow)
        measures = np.stack(
            [
                _cell_means(np.abs(difference - _upscaled(cell_difference)).mean(2)),
                np.abs(cell_difference).mean(2),
                _cell_means(texture),
                np.abs(cell_flow).mean(2),
                _cell_means(np.abs(flow - _upscaled(cell_flow)).mean(2)),
                np.abs(cell_difference - grey_difference[..., None]).mean(2),
            ]
        )
        per_region = measures.reshape(len(MEASURES), -1) @ self._weights.T
        return np.asarray(np.log(per_region + FLOORS[:, None]).ravel(), np.float32)


def clip_residuals(crops: NDArray[np.uint8], margin: float) -> Residuals:
    """Compute the temporal residuals of a clip.

    Args:
        crops: RGB uint8 `(T, H, H, 3)`, oldest first.
        margin: Side of the crops divided by the height of the face box.

    Returns:
        float32 `(T, NUM_RESIDUALS)`; see `ResidualMeter.measure`.
    """
    meter = ResidualMeter(margin)
    return np.stack([meter.measure(crop) for crop in crops])


def _cell_means(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _upscaled(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=8)
def _region_weights(margin: float) -> NDArray[np.float32]:
    """Return the weights of the cells in each region, float32 (regions, GRID²), each row with sum 1."""
    steps = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * margin
    # Coordinates relative to the centre of the face, in halves of its height.
    right, down = np.meshgrid(steps, steps)
    radius = np.hypot(right / FACE_ASPECT, down)
    masks = {
        "inner": radius < 0.55,
        "face": radius < 0.85,
        "edge": (radius > 0.85) & (radius < 1.1),
        "mouth": (np.abs(right) < 0.4) & (down > 0.27) & (down < 0.8),
        "eyes": (np.abs(right) < 0.58) & (down > -0.43) & (down < -0.02),
        "nose": (np.abs(right) < 0.26) & (down > -0.14) & (down < 0.3),
    }
    weights = np.stack([_cell_means(masks[region].astype(np.float32)).ravel() for region in REGIONS])
    return np.asarray(weights / np.maximum(weights.sum(1, keepdims=True), 1e-6), np.float32)
