"""Tests of the augmentation of crops and clips."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from train.sampling.augmentation import Augmentation, augment_clip, draw_augmentation

FACE = np.ascontiguousarray(astronaut()[40:184, 150:294])  # type: ignore[no-untyped-call]


def plain(augmentation: Augmentation) -> Augmentation:
    """Return an augmentation with the geometry only."""
    toneless = replace(augmentation, light=None, shading=None, colour=None, noise=0.0, jpeg_quality=0)
    return replace(toneless, blur=0.0, sharpen=0.0, downscale=1.0)


def test_frames_of_a_clip_are_augmented_alike() -> None:
    """Equal frames stay equal, except for the noise, which differs per frame."""
    quiet = replace(draw_augmentation(144, 112, np.random.default_rng(1)), noise=0.0)
    assert np.array_equal(quiet.apply(FACE, 0), quiet.apply(FACE, 1))
    noisy = replace(quiet, noise=4.0, jpeg_quality=0)
    assert not np.array_equal(noisy.apply(FACE, 0), noisy.apply(FACE, 1))
    assert np.array_equal(noisy.apply(FACE, 1), noisy.apply(FACE, 1))


@pytest.mark.parametrize("seed", range(4))
def test_a_region_is_warped_like_its_frame(seed: int) -> None:
    """A bright square and its region stay aligned under mirroring and enlargement."""
    augmentation = plain(draw_augmentation(144, 112, np.random.default_rng(seed), zoom=1.6))
    frame, region = np.zeros((144, 144, 3), np.uint8), np.zeros((144, 144), np.float32)
    frame[60:90, 50:70], region[60:90, 50:70] = 255, 1
    assert np.abs(augmentation.apply(frame)[..., 0] / 255 - augmentation.warp_region(region)).max() < 0.02


def test_crops_are_scaled_down_with_an_area_filter() -> None:
    """Downscaling matches live crops; linear interpolation would leave fine lines."""
    augmentation = plain(draw_augmentation(144, 72, np.random.default_rng(0)))
    halved = replace(augmentation, transform=np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]], np.float32))
    lines = np.zeros((144, 144, 3), np.uint8)
    lines[:, ::4] = 255
    wanted = cv2.resize(lines, (72, 72), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.warp(lines).astype(int) - wanted)[2:-2, 2:-2].max() <= 1


def test_colour_matrices_stay_plausible() -> None:
    """Half of the crops keep their colours; a few of the others become monochrome, none is inverted."""
    rng = np.random.default_rng(0)
    matrices = [draw_augmentation(144, 64, rng).colour for _ in range(400)]
    drawn = np.stack([matrix for matrix in matrices if matrix is not None])
    assert 150 < len(drawn) < 250
    # A monochrome matrix has rank 1.
    assert 2 <= (np.linalg.matrix_rank(drawn, tol=1e-5) == 1).sum() <= 30
    lights = FACE.reshape(-1, 3) @ drawn.mean(1).T
    assert min(np.corrcoef(FACE.mean(-1).ravel(), light)[0, 1] for light in lights.T) > 0.9


def test_some_crops_are_dark_and_some_sharpened() -> None:
    """Darkness and sharpening occur on real faces too, so both are part of the augmentation."""
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(144, 64, rng) for _ in range(400)]
    assert 20 < sum(augmentation.sharpen > 0 for augmentation in drawn) < 80
    whites = [
        int(augmentation.light[0, 255].max()) for augmentation in drawn if augmentation.light is not None
    ]
    assert 10 < sum(white < 150 for white in whites) < 80
    edges = [
        np.abs(np.diff(replace(plain(drawn[0]), sharpen=weight).apply(FACE).astype(int), axis=0)).mean()
        for weight in (0.0, 1.0)
    ]
    assert edges[1] > 1.3 * edges[0]


def test_shading_is_smooth_and_keeps_the_mean_brightness() -> None:
    """Some crops are lit unevenly, without sharp edges."""
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(144, 64, rng) for _ in range(400)]
    shades = [augmentation.shading for augmentation in drawn if augmentation.shading is not None]
    assert 80 < len(shades) < 160
    assert 0.9 < np.mean([shade.mean() for shade in shades]) < 1.2
    assert np.mean([shade.max() / shade.min() > 1.5 for shade in shades]) > 0.3
    grey = np.full((144, 144, 3), 100, np.uint8)
    lit = replace(plain(drawn[0]), shading=shades[0]).apply(grey)
    assert lit.std() > 1
    assert np.abs(np.diff(lit.astype(int), axis=0)).max() < 12


def test_enlarged_crops_stay_within_the_face() -> None:
    """However far a crop is enlarged, hardly any of it is replicated border."""
    rng = np.random.default_rng(0)
    whole = np.ones((144, 144), np.float32)
    covered = [draw_augmentation(144, 64, rng, zoom=1.75).warp_region(whole).mean() for _ in range(200)]
    assert min(covered) > 0.85
    assert np.mean(covered) > 0.98


def test_a_clip_keeps_its_layout() -> None:
    """The result has the requested size and is uint8."""
    clip = augment_clip(np.stack([FACE, FACE]), 64, np.random.default_rng(0))
    assert clip.shape == (2, 64, 64, 3)
    assert clip.dtype == np.uint8
