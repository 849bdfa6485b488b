"""Finds for a forged frame the real frame it was made of, and from both the region that was forged.

Published sets hold the original of most forgeries, cropped on its own. The nearest frame of the group is
registered on the forged one, and what still differs is the forgery: a label for every part of the picture.

Source: Evangelidis & Psarakis, "Parametric Image Alignment Using Enhanced Correlation Coefficient
Maximization", PAMI 2008 (the registration, OpenCV's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

REGION_PX = 72
"""Side of a region, and of the pictures that are registered."""
THUMB_PX = 24
LEAST_CORRELATION = 0.85
"""Below this the frames are not of the same moment."""
LARGEST_SHARE = 0.65
"""A region that covers more of the crop is a failed registration, not a forgery."""
UNCHANGED, CHANGED = 3.0, 9.0
"""Grey levels of difference up to which a place counts as untouched, and from which as forged."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Holds what a forged frame was made of.

    Args:
        clip: Number of the real clip.
        frame: Number of the frame in it.
        region: What was forged, uint8 (72, 72), 255 where certain; None if the frames cannot be registered.
        turn: Affine map (2, 3) from the forged frame to the real one, for frames of side 1; None likewise.
    """

    clip: int
    frame: int
    region: NDArray[np.uint8] | None
    turn: NDArray[np.float32] | None


def find_origins(forged: NDArray[np.uint8], reals: Sequence[NDArray[np.uint8]]) -> list[Origin]:
    """Find the origin of every frame of a forged clip.

    Args:
        forged: uint8 RGB (T, H, H, 3).
        reals: The real clips of its group, at least one, of the same form.

    Returns:
        One origin per frame.
    """
    where = [(number, frame) for number, clip in enumerate(reals) for frame in range(len(clip))]
    thumbs = np.stack([grey(frame, THUMB_PX) for clip in reals for frame in clip]).astype(np.float32)
    found = []
    for frame in forged:
        distance = np.abs(thumbs - grey(frame, THUMB_PX)).mean((1, 2))
        clip, index = where[int(distance.argmin())]
        region, turn = forged_region(reals[clip][index], frame)
        found.append(Origin(clip=clip, frame=index, region=region, turn=turn))
    return found


def forged_region(
    real: NDArray[np.uint8], forged: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | tuple[None, None]:
    """Register a real frame on the forged one and see what differs.

    Args:
        real: uint8 RGB (H, H, 3).
        forged: The same.

    Returns:
        The region in the forged frame, uint8 (72, 72), and the affine map (2, 3) from the forged frame to the
        real one, for frames of side 1; or nothing twice, if they cannot be registered.
    """
    turn = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
    try:
        correlation, found = cv2.findTransformECC(
            grey(forged, REGION_PX), grey(real, REGION_PX), turn, cv2.MOTION_AFFINE, stop
        )
    except cv2.error:  # it did not converge
        return None, None
    if correlation < LEAST_CORRELATION:
        return None, None
    size = (REGION_PX, REGION_PX)
    small = cv2.resize(real, size, interpolation=cv2.INTER_AREA)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(small, found, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    other = cv2.resize(forged, size, interpolation=cv2.INTER_AREA)
    difference = np.abs(moved.astype(np.float32) - other).mean(-1)
    smooth = cv2.GaussianBlur(difference, (0, 0), 2.5)
    region = np.clip((smooth - UNCHANGED) / (CHANGED - UNCHANGED), 0, 1)
    if region.mean() > LARGEST_SHARE:
        return None, None
    of_unit_side = np.asarray(found, np.float32)
    of_unit_side[:, 2] /= REGION_PX
    return np.asarray(np.round(region * 255), np.uint8), of_unit_side


def grey(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Shrink a frame, uint8 RGB (H, W, 3), to a grey square, uint8 (size, size), to compare it by."""
    small = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
