"""Tests of the motion within a face: a still image has none however it is shown, a moving face has some."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.face_motion import MotionMeter, clip_motion, moves

SAMPLES = 16
Crops = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    """Square crop of a face, RGB uint8 (160, 160, 3)."""
    return np.asarray(astronaut(), np.uint8)[40:200, 145:305].copy()  # type: ignore[no-untyped-call]


def repeated(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
    return [face] * SAMPLES


def noisy(sigma: float) -> Callable[[NDArray[np.uint8], np.random.Generator], Crops]:
    def make(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
        return [
            np.clip(face + rng.normal(0, sigma, face.shape), 0, 255).astype(np.uint8) for _ in range(SAMPLES)
        ]

    return make


def dark(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
    return noisy(6)((face * 0.3).astype(np.uint8), rng)


def small(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
    low = cv2.resize(face, (60, 60), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return [cv2.resize(crop, (160, 160)).astype(np.uint8) for crop in noisy(8)(low, rng)]


def dimmed(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
    return [(face * (0.9 - 0.1 * np.sin(i))).astype(np.uint8) for i in range(SAMPLES)]


def coded(quality: int) -> Callable[[NDArray[np.uint8], np.random.Generator], Crops]:
    def make(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
        crops = []
        for crop in noisy(3)(face, rng):
            data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            crops.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8))
        return crops

    return make


def panned(face: NDArray[np.uint8], rng: np.random.Generator) -> Crops:
    return [shown(face, zoom=1 + 0.004 * i, right=0.3 * i, down=-0.2 * i) for i in range(SAMPLES)]


def shown(face: NDArray[np.uint8], *, zoom: float, right: float, down: float) -> NDArray[np.uint8]:
    affine = cv2.getRotationMatrix2D((80, 80), 0, zoom)
    affine[:, 2] += np.array([right, down])
    warped = cv2.warpAffine(face, affine, (160, 160), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


@pytest.mark.parametrize(
    "still", [repeated, noisy(3), noisy(10), noisy(20), dark, small, dimmed, coded(90), coded(40), panned]
)
def test_still_image_does_not_move(
    portrait: NDArray[np.uint8], still: Callable[[NDArray[np.uint8], np.random.Generator], Crops]
) -> None:
    """Repetition, noise, darkness, changes of light, coding and slow pans are no motion of a face."""
    assert not moves(clip_motion(np.stack(still(portrait, np.random.default_rng(3)))))


@pytest.mark.parametrize("sigma", [0.0, 10.0])
def test_face_of_a_person_who_sits_still_moves(portrait: NDArray[np.uint8], sigma: float) -> None:
    """Two pixels of motion of the chin, one percent of the face, are a motion, also with noise."""
    rng = np.random.default_rng(3)
    crops = []
    for i in range(SAMPLES):
        lower = shown(portrait, zoom=1, right=0, down=2 * np.sin(0.8 * i))
        weight = np.linspace(0, 1, 160).reshape(-1, 1, 1)
        face = (1 - weight) * portrait + weight * lower + rng.normal(0, sigma, portrait.shape)
        crops.append(np.clip(face, 0, 255).astype(np.uint8))
    assert moves(clip_motion(np.stack(crops)))


def test_moving_the_crop_over_a_still_image_is_no_motion(portrait: NDArray[np.uint8]) -> None:
    """The box of a face jumps by some pixels with each detection; the square of each crop is known."""
    large = cv2.resize(portrait, (480, 480), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(3)
    meter, motion = MotionMeter(), []
    for _ in range(SAMPLES):
        x, y, side = (2 * int(value) for value in rng.integers((30, 30, 170), (40, 40, 180)))
        crop = cv2.resize(large[y : y + side, x : x + side], (160, 160), interpolation=cv2.INTER_AREA)
        motion.append(meter.measure(np.asarray(crop, np.uint8), (x, y, side)))
    assert not moves(motion)


def test_motion_does_not_reach_across_a_clear(portrait: NDArray[np.uint8]) -> None:
    """The first crop after a gap has nothing to be compared with."""
    meter = MotionMeter()
    values = [meter.measure(portrait, (0, 0, 160)) for _ in range(2)]
    meter.clear()
    values.append(meter.measure(portrait, (0, 0, 160)))
    assert [np.isnan(value) for value in values] == [True, False, True]
