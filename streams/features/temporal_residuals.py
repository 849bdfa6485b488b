"""Temporal residuals: what changes in a face, and is not its motion, compared with its surroundings.

Most deepfakes are synthesised frame by frame, so light, colour and shape of the synthesised region vary in
time where those of a real face do not. Noise, coding and the shutter of a camera change a face too, but they
change the hair, the neck and the background just as much. Two crops that contain the surroundings are
therefore compared:

1. Dense optical flow from the earlier crop to the current one is computed.
2. The current crop is warped back onto the earlier one, which removes the motion.
3. Four measures (`MEASURES`) are computed in a grid of cells, from the warped difference and the flow.
4. Each measure is averaged over five regions of the face (`REGIONS`) and over a ring around it. The logarithm
   of the ratio of the two is returned: 0 where the face changes as its surroundings do.

A sample is compared with the frame decoded just before it, in which a face has hardly moved, and with the
sample two before it (`COMPARISONS`).

    meter = ResidualMeter()
    residuals = meter.measure(cut_context(frame, face.box))      # float32 (NUM_RESIDUALS,)

Sources: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (optical flow); Zheng et
al., "Exploring Temporal Coherence for More General Video Face Forgery Detection", ICCV 2021 (temporal
incoherence as a cue).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

COMPARISONS = ("frame", "samples")
"""Images that a sample is compared with: the frame decoded before it, and the sample `LAG` before it."""
LAG = 2
"""Distance in samples of the second comparison."""
MEASURES = ("fine", "coarse", "warp", "colour")
"""Measures per cell:

fine      mean absolute difference after the cell means are subtracted, in grey levels
coarse    absolute difference of the cell means, in grey levels
warp      mean absolute deviation of the flow from the cell means, in pixels
colour    difference of the cell means without its grey part, in grey levels
"""
REGIONS = ("face", "edge", "mouth", "eyes", "nose")
"""Regions of the face over which the cells are averaged; see `_region_weights`."""
NUM_RESIDUALS = len(COMPARISONS) * len(MEASURES) * len(REGIONS)

VERSION = 2
"""Number of this definition. Stored residuals of another one cannot be used."""

MARGIN = 2.2
"""Side of the crops divided by the height of the face box."""
SIZE = 180
"""Side of the crops in pixels."""
GRID = 30
"""Cells per side of the grid."""
CELL = SIZE // GRID
"""Side of a cell in pixels."""
ROWS, COLUMNS = slice(1, 29), slice(4, 26)
"""Cells that the regions and the ring reach; the others are not computed."""
BLUR_SIGMA = 0.7
"""Standard deviation in pixels of the blur before comparison, which suppresses sensor and coding noise."""
FLOORS = np.array([0.1, 0.1, 0.02, 0.1], np.float32)
"""Added to each measure before the logarithm, in the measure's unit; smaller values carry no information."""
MIN_VISIBLE = 0.1
"""Smallest share of a region, or of the ring, that must be inside the frame."""
FACE_ASPECT = 0.76
"""Width of a face box divided by its height."""
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)

Residuals = NDArray[np.float32]
WHOLE = (0.0, 0.0, 1.0, 1.0)


def every_nth(residuals: Residuals, every: int) -> Residuals:
    """Return the residuals of a clip as if only every n-th sample had been measured.

    Args:
        residuals: Residuals of all samples, float32 `(T, NUM_RESIDUALS)`.
        every: Samples from one that is measured to the next, at least 1.

    Returns:
        float32 `(T, NUM_RESIDUALS)`, NaN where there would be none.
    """
    thinned = residuals.copy()
    for first in range(1, every):
        thinned[first::every] = np.nan
    if LAG % every:
        thinned[:, NUM_RESIDUALS // len(COMPARISONS) :] = np.nan
    return thinned


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceContext:
    """A face with its surroundings, in a sample and in the frame before it.

    Args:
        current: Crop of the sample, RGB uint8 `(SIZE, SIZE, 3)`, centred on the face box.
        previous: The same part of the frame before it; None if there is none to compare with.
        visible: Part of the crop that is inside the frame: left, top, right and bottom as shares of its side.
    """

    current: NDArray[np.uint8]
    previous: NDArray[np.uint8] | None = None
    visible: tuple[float, float, float, float] = WHOLE


class _Crop(NamedTuple):
    rgb: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    visible: tuple[float, float, float, float]


class ResidualMeter:
    """Temporal residuals of one face; samples are passed in the order of time."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._samples: deque[_Crop | None] = deque(maxlen=LAG)
        height, width = (CELL * (cells.stop - cells.start) for cells in (ROWS, COLUMNS))
        self._pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)

    def measure(self, context: FaceContext) -> Residuals:
        """Compare a sample with what came before it.

        Args:
            context: The sample.

        Returns:
            float32 `(NUM_RESIDUALS,)`, natural logarithms of ratios, ordered by comparison, then measure,
            then region. NaN where there is nothing to compare with, where two frames are the same, and where
            too little of a region or of the surroundings is inside the frame.
        """
        current = _prepared(context.current, context.visible)
        frame = None if context.previous is None else _prepared(context.previous, context.visible)
        sample = self._samples[0] if len(self._samples) == LAG else None
        self._samples.append(current)
        return np.concatenate([self._compare(earlier, current) for earlier in (frame, sample)])

    def skip(self) -> Residuals:
        """Pass over a sample that is not measured, and with which no later one is compared.

        Returns:
            float32 `(NUM_RESIDUALS,)`, all NaN.
        """
        self._samples.append(None)
        return np.full(NUM_RESIDUALS, np.nan, np.float32)

    def clear(self) -> None:
        """Forget the previous samples, because the next one does not follow them."""
        self._samples.clear()

    def _compare(self, earlier: _Crop | None, current: _Crop) -> Residuals:
        """Return the residuals of one comparison, float32 (measures * regions,)."""
        if earlier is None or np.array_equal(earlier.grey, current.grey):
            return np.full(NUM_RESIDUALS // len(COMPARISONS), np.nan, np.float32)
        flow = self._flow.calc(earlier.grey, current.grey, None)  # type: ignore[call-overload]
        warped = cv2.remap(  # type: ignore[call-overload]
            current.rgb, self._pixels + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        difference = cv2.subtract(warped, earlier.rgb, dtype=cv2.CV_32F)
        cell_difference, cell_flow = _cell_means(difference), _cell_means(flow)
        measures = np.stack(
            [
                _cell_means(cv2.absdiff(difference, _upscaled(cell_difference))).mean(2),
                np.abs(cell_difference).mean(2),
                _cell_means(cv2.absdiff(flow, _upscaled(cell_flow))).mean(2),
                np.abs(cell_difference - cell_difference @ LUMA.T).mean(2),
            ]
        )
        weights = _region_weights(_visible_cells(earlier), _visible_cells(current))
        per_region = np.log(measures.reshape(len(MEASURES), -1) @ weights.T + FLOORS[:, None])
        return np.asarray(per_region[:, :-1] - per_region[:, -1:], np.float32).ravel()


def _prepared(crop: NDArray[np.uint8], visible: tuple[float, float, float, float]) -> _Crop:
    used = crop[CELL * ROWS.start : CELL * ROWS.stop, CELL * COLUMNS.start : CELL * COLUMNS.stop]
    rgb = cv2.GaussianBlur(used, (0, 0), BLUR_SIGMA)
    return _Crop(np.asarray(rgb, np.uint8), np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)), visible)


def _cell_means(image: cv2.typing.MatLike) -> NDArray[np.float32]:
    size = image.shape[1] // CELL, image.shape[0] // CELL
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _upscaled(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    size = cells.shape[1] * CELL, cells.shape[0] * CELL
    return np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _visible_cells(crop: _Crop) -> tuple[int, int, int, int]:
    """Return the cells that are wholly inside the frame: first column and row, and the ends of both."""
    left, top, right, bottom = crop.visible
    return ceil(left * GRID), ceil(top * GRID), floor(right * GRID), floor(bottom * GRID)


@lru_cache(maxsize=64)
def _region_weights(*visible: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Return the weights of the computed cells, float32 (regions + 1, cells): each region, and last the ring.

    Only cells inside all of the given limits are used. The weights of a row have the sum 1; all are NaN if
    too little of the region is left.
    """
    inside = np.zeros((GRID, GRID), np.bool_)
    left, top, right, bottom = np.array(visible).T
    inside[max(top) : min(bottom), max(left) : min(right)] = True
    whole = _whole_regions()
    weights = whole * inside[ROWS, COLUMNS].ravel()
    sums = weights.sum(1, keepdims=True)
    enough = sums >= MIN_VISIBLE * whole.sum(1, keepdims=True)
    return np.where(enough, weights / np.maximum(sums, 1e-6), np.nan).astype(np.float32)


@lru_cache(maxsize=1)
def _whole_regions() -> NDArray[np.float32]:
    """Return the share of each computed cell in each region and in the ring, float32 (regions + 1, cells)."""
    steps = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * MARGIN
    # Coordinates relative to the centre of the face, in halves of its height.
    right, down = np.meshgrid(steps, steps)
    radius = np.hypot(right / FACE_ASPECT, down)
    masks = {
        "face": radius < 0.85,
        "edge": (radius > 0.85) & (radius < 1.1),
        "mouth": (np.abs(right) < 0.4) & (down > 0.27) & (down < 0.8),
        "eyes": (np.abs(right) < 0.58) & (down > -0.43) & (down < -0.02),
        "nose": (np.abs(right) < 0.26) & (down > -0.14) & (down < 0.3),
    }
    ring = (radius > 1.15) & (radius < 2.0)
    return np.stack(
        [
            _cell_means(mask.astype(np.float32))[ROWS, COLUMNS].ravel()
            for mask in (*(masks[region] for region in REGIONS), ring)
        ]
    )
