"""Regions of a face and of its surroundings, in a grid of cells over a crop that contains both.

The crop is a square centred on the face box, `MARGIN` times as high. Measures of its cells are averaged over
five regions of the face (`REGIONS`), and over a ring around it: hair, neck and background.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

REGIONS = ("face", "edge", "mouth", "eyes", "nose")
"""Regions of the face."""
MARGIN = 2.2
"""Side of the crop divided by the height of the face box."""
GRID = 30
"""Cells per side of the grid."""
ROWS, COLUMNS = slice(1, 29), slice(4, 26)
"""Cells that the regions and the ring reach; the others are not computed."""
MIN_VISIBLE = 0.1
"""Smallest share of a region, or of the ring, that must be inside the frame."""
FACE_ASPECT = 0.76
"""Width of a face box divided by its height."""
FINENESS = 6
"""Points per side of a cell at which the outlines of the regions are evaluated."""

Visible = tuple[float, float, float, float]
"""Part of a crop that is inside the frame: left, top, right and bottom as shares of its side."""


def used_part(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the part of a crop that the cells of `ROWS` and `COLUMNS` cover, as a view.

    Args:
        crop: uint8 `(S, S)` or `(S, S, 3)`, S a multiple of `GRID`.
    """
    cell = len(crop) // GRID
    return crop[cell * ROWS.start : cell * ROWS.stop, cell * COLUMNS.start : cell * COLUMNS.stop]


def cell_means(image: cv2.typing.MatLike) -> NDArray[np.float32]:
    """Return the mean of each cell of a used part, float32 (rows, columns) or (rows, columns, channels)."""
    size = COLUMNS.stop - COLUMNS.start, ROWS.stop - ROWS.start
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def enlarged(cells: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return values of cells interpolated to the height and width at the start of a shape."""
    return np.asarray(cv2.resize(cells, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def region_weights(*visible: Visible) -> NDArray[np.float32]:
    """Return the weight of each computed cell in each region, and last in the ring.

    Args:
        visible: Parts of the compared crops that are inside the frame. Only cells wholly inside all of them
            are used.

    Returns:
        float32 (regions + 1, cells); the sum of a row is 1. NaN if too little of the region is left.
    """
    return _region_weights(*(_visible_cells(part) for part in visible))


def _visible_cells(visible: Visible) -> tuple[int, int, int, int]:
    """Return the cells that are wholly inside the frame: first column and row, and the ends of both."""
    left, top, right, bottom = visible
    return ceil(left * GRID), ceil(top * GRID), floor(right * GRID), floor(bottom * GRID)


@lru_cache(maxsize=64)
def _region_weights(*visible: tuple[int, int, int, int]) -> NDArray[np.float32]:
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
    points = GRID * FINENESS
    steps = ((np.arange(points) + 0.5) / points * 2 - 1) * MARGIN
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
            cell_means(used_part(mask.astype(np.float32))).ravel()
            for mask in (*(masks[region] for region in REGIONS), ring)
        ]
    )
