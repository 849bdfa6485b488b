"""Tests of the measures of image quality, on one face made worse in known steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.picture_quality import BLOCK, measure_blockiness, measure_quality

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def face() -> Image:
    """Crop of a face, RGB uint8 (160, 160, 3)."""
    portrait = np.asarray(astronaut(), np.uint8)[40:200, 145:305]  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(portrait)


def blurred(face: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8)


def enlarged(face: Image, height: float) -> Image:
    size = round(height)
    small = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, face.shape[:2], interpolation=cv2.INTER_LINEAR), np.uint8)


def noisy(face: Image, sigma: float) -> Image:
    noise = np.random.default_rng(1).normal(0, sigma, face.shape)
    return np.asarray(np.clip(np.rint(face + noise), 0, 255), np.uint8)


def darkened(face: Image, exposure: float) -> Image:
    return np.asarray(np.rint(face * exposure), np.uint8)


def faded(face: Image, gain: float) -> Image:
    return np.asarray(np.rint(128 + gain * (face.astype(np.float32) - 128)), np.uint8)


@pytest.mark.parametrize(
    ("name", "worsen", "steps"),
    [
        ("sharpness", blurred, (0.5, 1, 2, 4, 8)),
        ("sharpness", enlarged, (120, 80, 40, 20, 10)),
        ("brightness", darkened, (1, 0.6, 0.3, 0.1, 0)),
        ("contrast", faded, (1, 0.6, 0.3, 0.1, 0)),
        ("noise", noisy, (24, 12, 6, 3, 0)),
    ],
)
def test_each_measure_falls_step_by_step(
    face: Image, name: str, worsen: Callable[[Image, float], Image], steps: tuple[float, ...]
) -> None:
    """Each step has a lower value than the one before."""
    values = [getattr(measure_quality(worsen(face, step)), name) for step in steps]
    assert all(better > worse for better, worse in pairwise(values)), values


def test_values(face: Image) -> None:
    """Brightness and contrast are in grey levels, noise is about its standard deviation."""
    plain = measure_quality(np.full((160, 160, 3), 90, np.uint8))
    assert (plain.sharpness, plain.noise, plain.contrast) == (0, 0, 0)
    assert plain.brightness == pytest.approx(90, abs=0.5)
    # The luma of independent noise in R, G and B has 0.67 of its standard deviation.
    grey = measure_quality(noisy(np.full((160, 160, 3), 128, np.uint8), 12))
    assert grey.noise == pytest.approx(12 * 0.67, rel=0.08)


def test_less_light_is_no_blur(face: Image) -> None:
    """Sharpness hardly depends on light and contrast, nor brightness on blur."""
    sharp = measure_quality(face)
    assert measure_quality(darkened(face, 0.4)).sharpness == pytest.approx(sharp.sharpness, abs=0.05)
    assert measure_quality(blurred(face, 4)).brightness == pytest.approx(sharp.brightness, abs=2)


def test_background_does_not_count(face: Image) -> None:
    """The edge of the crop, where there is background, changes nothing."""
    framed = np.zeros_like(face)
    inner = slice(24, 136)
    framed[inner, inner] = face[inner, inner]
    assert measure_quality(framed) == measure_quality(face)


def test_blockiness_of_jpeg(face: Image) -> None:
    """Stronger compression has stronger edges of blocks, at their place in the frame only."""
    luma = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)
    values = []
    for quality in (95, 40, 15, 5):
        encoded = cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        coded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
        values.append(measure_blockiness(coded, 0, 0))
    assert all(less < more for less, more in pairwise(values)), values
    assert values[-1] > 2
    shifted = coded[3:, 5:]
    assert measure_blockiness(shifted, 5, 3) > 2
    assert measure_blockiness(shifted, 0, 0) < 1.3
    assert measure_blockiness(np.full((2 * BLOCK, 2 * BLOCK), 7, np.uint8), 0, 0) == 0
