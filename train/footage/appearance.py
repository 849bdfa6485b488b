"""Brightness of a face and colour of its skin, measured on crops, for the false positive rate by group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Centres of the cheeks in the square around the face box, and half the side of a patch.
CHEEKS = ((0.30, 0.60), (0.70, 0.60))
PATCH = 0.07
# Skin in white light has a b* well above this.
MIN_YELLOW = 2.0

BRIGHTNESS_GROUPS = ("dark", "medium", "bright")
BRIGHTNESS_LIMITS = (70.0, 120.0)
"""Mean luma of the crop, 0..255, from which a face is `medium` and `bright`."""
TONE_GROUPS = ("dark", "brown", "tan", "intermediate", "light", "very light", "coloured light")
TONE_LIMITS = (-30.0, 10.0, 28.0, 41.0, 55.0)
"""Limits of the individual typology angle in degrees, after Del Bino & Bernerd."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """Appearance of a face in one crop.

    Args:
        luma: Mean luma of the crop, 0..255.
        tone_angle: Individual typology angle of the cheeks in degrees; a larger one means lighter skin. None
            if the cheeks are not of the colour of skin, as in coloured light and in grey videos.
    """

    luma: float
    tone_angle: float | None


def measure_appearance(crop: NDArray[np.uint8], margin: float) -> Appearance:
    """Measure a crop.

    The angle is that of the image, not of the person: dim or coloured light changes it.

    Args:
        crop: RGB uint8 `(S, S, 3)`, centred on a face box.
        margin: Side of the crop as a multiple of the box's height.

    Source:
        Chardon, Cretois & Hourseau, "Skin colour typology and suntanning pathways", 1991: the angle is
        arctan((L* - 50) / b*).
    """
    size = crop.shape[0]
    patches = []
    for x, y in CHEEKS:
        centre_x, centre_y = (size * (0.5 + (value - 0.5) / margin) for value in (x, y))
        half = max(1.0, size * PATCH / margin)
        left, right = round(centre_x - half), round(centre_x + half)
        top, bottom = round(centre_y - half), round(centre_y + half)
        patches.append(crop[top:bottom, left:right].reshape(-1, 3))
    pixels = np.concatenate(patches)[None].astype(np.float32) / 255
    lightness, _, yellow = np.median(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0], axis=0)
    luma = float(np.mean(crop.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])))
    if yellow < MIN_YELLOW:
        return Appearance(luma, None)
    return Appearance(luma, math.degrees(math.atan2(float(lightness) - 50, float(yellow))))


def brightness_group(luma: float) -> str:
    """Return the name of the group of a luma, 0..255."""
    return BRIGHTNESS_GROUPS[sum(luma >= limit for limit in BRIGHTNESS_LIMITS)]


def tone_group(angle: float | None) -> str:
    """Return the name of the group of an individual typology angle in degrees; see `Appearance`."""
    if angle is None:
        return TONE_GROUPS[-1]
    return TONE_GROUPS[sum(angle > limit for limit in TONE_LIMITS)]
