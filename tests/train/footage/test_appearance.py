"""Tests of brightness and skin tone of a crop."""

from __future__ import annotations

import numpy as np
import pytest

from train.footage.appearance import brightness_group, measure_appearance, tone_group


@pytest.mark.parametrize(
    ("colour", "brightness", "tone"),
    [
        # Skin colours of the six classes, from light to dark, as sRGB.
        ((250, 226, 205), "bright", "very light"),
        ((205, 165, 140), "bright", "light"),
        ((205, 160, 125), "bright", "intermediate"),
        ((180, 135, 100), "bright", "tan"),
        ((120, 80, 55), "medium", "brown"),
        ((70, 45, 30), "dark", "dark"),
    ],
)
def test_groups_of_skin_colours(colour: tuple[int, int, int], brightness: str, tone: str) -> None:
    """A crop of one colour falls into the class of that colour."""
    found = measure_appearance(np.full((96, 96, 3), colour, np.uint8), 1.02)
    assert (brightness_group(found.luma), tone_group(found.tone_angle)) == (brightness, tone)


@pytest.mark.parametrize("colour", [(128, 128, 128), (90, 90, 200)], ids=["grey", "blue"])
def test_coloured_light_has_no_skin_tone(colour: tuple[int, int, int]) -> None:
    """Under blue light and in grey videos the angle says nothing about the skin."""
    found = measure_appearance(np.full((96, 96, 3), colour, np.uint8), 1.3)
    assert found.tone_angle is None
    assert tone_group(found.tone_angle) == "coloured light"


def test_only_the_cheeks_count_for_the_tone() -> None:
    """Hair, background and mouth do not change the skin tone."""
    plain = np.full((100, 100, 3), (205, 160, 125), np.uint8)
    framed = plain.copy()
    framed[:45], framed[75:], framed[:, :18], framed[:, 82:] = 0, 0, 0, 0
    assert measure_appearance(framed, 1.0).tone_angle == measure_appearance(plain, 1.0).tone_angle
