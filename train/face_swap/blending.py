"""Pasting of a face into a frame: colours, soft masks and the warp back, as face-swap software does."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from train.face_swap.alignment import AlignedFace, Image
from train.face_swap.config import GeneratorDesign

CENTRE = (0.5, 0.53)
"""Centre of the mask's ellipse in the aligned square."""
RADII = (0.275, 0.355)
"""Halves of its width and height."""
TURN_SHIFT, TURN_SHRINK = 0.45, 0.55
"""Shift and loss of width of the ellipse per shift of the nose, so that it stays inside a turned face."""
MAX_GAIN = 1.5
SHARPEN_SIGMA = 0.015
"""Standard deviation of the blur for sharpening, in shares of the side."""


def paste_face(rgb: Image, face: AlignedFace, drawn: Image, design: GeneratorDesign) -> None:
    """Paste a drawn face into a frame, in place.

    Args:
        rgb: The frame, changed by this function.
        face: Position of the face.
        drawn: Aligned drawn face, RGB uint8 `(size, size, 3)`.
        design: Mask and sharpening.
    """
    size = len(drawn)
    mask = face_mask(size, round(face.turn, 2), design.mask_scale, design.softness)
    patch = match_colours(drawn, face.cut(rgb, size), mask)
    if design.sharpen:
        blurred = cv2.GaussianBlur(patch, (0, 0), SHARPEN_SIGMA * size)
        patch = np.asarray(cv2.addWeighted(patch, 1 + design.sharpen, blurred, -design.sharpen, 0), np.uint8)
    blend_patch(rgb, face, patch, mask)


def blend_patch(
    rgb: Image, face: AlignedFace, patch: Image | NDArray[np.float32], weight: NDArray[np.float32]
) -> None:
    """Warp an aligned patch back into its frame, in place.

    Args:
        rgb: The frame, changed by this function.
        face: Position of the face.
        patch: RGB `(size, size, 3)`, uint8 or float32 grey levels.
        weight: Weight of the patch, `(size, size)` in 0..1; the rest is the frame's.
    """
    size = len(patch)
    matrix = face.matrix(size)
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    height, width = rgb.shape[:2]
    left, top = np.clip(np.floor(corners.min(1)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(1)) + 1, 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return
    matrix[:, 2] -= left, top
    extent = (int(right - left), int(bottom - top))
    warped = cv2.warpAffine(patch, matrix, extent, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(weight, matrix, extent, flags=cv2.INTER_LINEAR)[..., None]
    region = rgb[top:bottom, left:right]
    # The cubic kernel overshoots the range of a float32 patch.
    mixed = np.clip(np.rint(region + share * (warped.astype(np.float32) - region)), 0, 255)
    region[:] = mixed.astype(np.uint8)


@lru_cache(maxsize=128)
def face_mask(size: int, turn: float, scale: float, softness: float) -> NDArray[np.float32]:
    """Return the weight of the drawn face, float32 `(size, size)` in 0..1.

    Args:
        size: Side of the aligned square in pixels.
        turn: Shift of the nose; see `AlignedFace`.
        scale: Size of the ellipse relative to the whole face.
        softness: Width of the soft edge inside the ellipse, relative to it.
    """
    turn = float(np.clip(turn, -0.2, 0.2))
    centre = (CENTRE[0] + TURN_SHIFT * turn, CENTRE[1])
    radii = (scale * (RADII[0] - TURN_SHRINK * abs(turn)), scale * RADII[1])
    return ellipse_mask(size, centre, radii, softness)


def ellipse_mask(
    size: int, centre: tuple[float, float], radii: tuple[float, float], softness: float
) -> NDArray[np.float32]:
    """Return a soft ellipse, float32 `(size, size)` in 0..1.

    Args:
        size: Side of the aligned square in pixels.
        centre: x and y in shares of the side.
        radii: Halves of its width and height in shares of the side.
        softness: Width of the soft edge inside the ellipse, relative to it.
    """
    steps = (np.arange(size) + 0.5) / size
    right, down = np.meshgrid(steps, steps)
    radius = np.hypot((right - centre[0]) / radii[0], (down - centre[1]) / radii[1])
    weight = np.clip((1 - radius) / softness, 0, 1)
    return np.asarray(weight**2 * (3 - 2 * weight), np.float32)


def match_colours(drawn: Image, original: Image, mask: NDArray[np.float32]) -> Image:
    """Return a drawn face with the mean and the spread of the original's colours in CIE Lab, in the mask.

    Args:
        drawn: RGB uint8 `(size, size, 3)`.
        original: The same part of the frame.
        mask: Weight of each pixel.

    Source: Reinhard et al., "Color Transfer between Images", 2001.
    """
    ours, theirs = (
        cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for image in (drawn, original)
    )
    weight = mask[..., None] / max(float(mask.sum()), 1e-6)

    def moments(lab: cv2.typing.MatLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean = (weight * lab).sum((0, 1))
        return mean, np.sqrt((weight * (lab - mean) ** 2).sum((0, 1)))

    (our_mean, our_spread), (their_mean, their_spread) = moments(ours), moments(theirs)
    gain = np.clip(their_spread / np.maximum(our_spread, 1e-3), 1 / MAX_GAIN, MAX_GAIN)
    matched = cv2.cvtColor(((ours - our_mean) * gain + their_mean).astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(np.rint(matched * 255), 0, 255), np.uint8)
