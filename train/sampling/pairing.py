"""Search for the real frame that a fake frame was made from, and for the region that was changed.

Most data sets contain the original of each fake, cropped independently. The most similar real frame of the
same group is registered on the fake one. Where the registered frames differ, the face was changed.

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
"""Side of a region, and of the frames that are registered, in pixels."""
THUMBNAIL_PX = 24
"""Side at which frames are compared to find the most similar one, in pixels."""
MIN_CORRELATION = 0.85
"""Correlation of the registered frames below which they show different moments."""
MAX_REGION_SHARE = 0.65
"""Share of the crop above which a region is a failed registration."""
UNCHANGED_LEVEL, CHANGED_LEVEL = 3.0, 9.0
"""Difference in grey levels up to which a pixel counts as unchanged, and from which as changed."""


@dataclass(frozen=True, kw_only=True)
class OriginalFrame:
    """Real frame that a fake frame was made from, and where the two differ.

    Attributes:
        clip: Index of the real clip.
        frame: Index of the frame in it.
        region: Changed region of the fake frame, uint8 `(72, 72)`, 255 where it certainly changed; None if
            the frames could not be registered.
        transform: Affine map `(2, 3)` from the fake frame to the real one, in units of the frame's side;
            None if the frames could not be registered.
    """

    clip: int
    frame: int
    region: NDArray[np.uint8] | None
    transform: NDArray[np.float32] | None


def find_original_frames(fake: NDArray[np.uint8], reals: Sequence[NDArray[np.uint8]]) -> list[OriginalFrame]:
    """Find the original of every frame of a fake clip.

    Args:
        fake: RGB uint8 `(T, H, H, 3)`.
        reals: Real clips of the same group and form, at least one.

    Returns:
        One original frame per fake frame.
    """
    positions = [(number, frame) for number, clip in enumerate(reals) for frame in range(len(clip))]
    thumbnails = np.stack([grey_thumbnail(frame, THUMBNAIL_PX) for clip in reals for frame in clip])
    found = []
    for frame in fake:
        distance = np.abs(thumbnails.astype(np.float32) - grey_thumbnail(frame, THUMBNAIL_PX)).mean((1, 2))
        clip, index = positions[int(distance.argmin())]
        region, transform = changed_region(reals[clip][index], frame)
        found.append(OriginalFrame(clip=clip, frame=index, region=region, transform=transform))
    return found


def changed_region(
    real: NDArray[np.uint8], fake: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | tuple[None, None]:
    """Register a real frame on a fake one and find where they differ.

    Args:
        real: RGB uint8 `(H, H, 3)`.
        fake: RGB uint8 `(H, H, 3)`.

    Returns:
        Region and transform, as in `OriginalFrame`; both None if the frames cannot be registered.
    """
    identity = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
    try:
        correlation, transform = cv2.findTransformECC(
            grey_thumbnail(fake, REGION_PX),
            grey_thumbnail(real, REGION_PX),
            identity,
            cv2.MOTION_AFFINE,
            stop,
        )
    except cv2.error:  # it did not converge
        return None, None
    if correlation < MIN_CORRELATION:
        return None, None
    size = (REGION_PX, REGION_PX)
    small = cv2.resize(real, size, interpolation=cv2.INTER_AREA)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    registered = cv2.warpAffine(small, transform, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    other = cv2.resize(fake, size, interpolation=cv2.INTER_AREA)
    difference = np.abs(registered.astype(np.float32) - other).mean(-1)
    smooth = cv2.GaussianBlur(difference, (0, 0), 2.5)
    region = np.clip((smooth - UNCHANGED_LEVEL) / (CHANGED_LEVEL - UNCHANGED_LEVEL), 0, 1)
    if region.mean() > MAX_REGION_SHARE:
        return None, None
    of_unit_side = np.asarray(transform, np.float32)
    of_unit_side[:, 2] /= REGION_PX
    return np.asarray(np.round(region * 255), np.uint8), of_unit_side


def grey_thumbnail(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a frame, RGB uint8 `(H, W, 3)`, as a small grey square, uint8 `(size, size)`."""
    small = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
