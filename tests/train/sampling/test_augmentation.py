"""Variations keep what a crop is and are alike for all frames of a clip."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from train.sampling.augmentation import Variation, draw_variation, varied

FACE = np.ascontiguousarray(astronaut()[40:184, 150:294])  # type: ignore[no-untyped-call]


def plain(variation: Variation) -> Variation:
    """Leave of a variation its geometry alone."""
    toneless = replace(variation, light=None, shade=None, cast=None, noise=0.0, quality=0)
    return replace(toneless, blur=0.0, sharpen=0.0, shrink=1.0)


def test_frames_of_a_clip_vary_alike() -> None:
    """Equal frames stay equal, but for the noise, which is every frame's own."""
    quiet = replace(draw_variation(144, 112, np.random.default_rng(1)), noise=0.0)
    assert np.array_equal(quiet.apply(FACE, 0), quiet.apply(FACE, 1))
    noisy = replace(quiet, noise=4.0, quality=0)
    assert not np.array_equal(noisy.apply(FACE, 0), noisy.apply(FACE, 1))
    assert np.array_equal(noisy.apply(FACE, 1), noisy.apply(FACE, 1))


@pytest.mark.parametrize("seed", range(4))
def test_a_region_moves_with_the_picture(seed: int) -> None:
    """A bright square is where its region says, whichever way the crop was turned and enlarged."""
    variation = plain(draw_variation(144, 112, np.random.default_rng(seed), zoom=1.6))
    frame, region = np.zeros((144, 144, 3), np.uint8), np.zeros((144, 144), np.float32)
    frame[60:90, 50:70], region[60:90, 50:70] = 255, 1
    assert np.abs(variation.apply(frame)[..., 0] / 255 - variation.move(region)).max() < 0.02


def test_crops_are_scaled_down_as_live_ones_are() -> None:
    """A crop at half size is what an area filter makes of it: linear interpolation would leave fine lines."""
    variation = plain(draw_variation(144, 72, np.random.default_rng(0)))
    halved = replace(variation, turn=np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]], np.float32))
    lines = np.zeros((144, 144, 3), np.uint8)
    lines[:, ::4] = 255
    wanted = cv2.resize(lines, (72, 72), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.place(lines).astype(int) - wanted)[2:-2, 2:-2].max() <= 1


def test_colours_are_cast_as_by_a_camera() -> None:
    """Half of the crops keep their colours; of the others a few lose all, none turns its light around."""
    rng = np.random.default_rng(0)
    casts = [draw_variation(144, 64, rng).cast for _ in range(400)]
    drawn = np.stack([cast for cast in casts if cast is not None])
    assert 150 < len(drawn) < 250
    # Without colours every pixel is the same tint, lighter or darker.
    assert 2 <= (np.linalg.matrix_rank(drawn, tol=1e-5) == 1).sum() <= 30
    lights = FACE.reshape(-1, 3) @ drawn.mean(1).T
    assert min(np.corrcoef(FACE.mean(-1).ravel(), light)[0, 1] for light in lights.T) > 0.9


def test_some_crops_are_dark_and_some_sharpened() -> None:
    """Neither says anything of a forgery, so both must be there of real faces and forged ones."""
    rng = np.random.default_rng(0)
    drawn = [draw_variation(144, 64, rng) for _ in range(400)]
    assert 20 < sum(variation.sharpen > 0 for variation in drawn) < 80
    whites = [int(variation.light[0, 255].max()) for variation in drawn if variation.light is not None]
    assert 10 < sum(white < 150 for white in whites) < 80
    edges = [
        np.abs(np.diff(replace(plain(drawn[0]), sharpen=weight).apply(FACE).astype(int), axis=0)).mean()
        for weight in (0.0, 1.0)
    ]
    assert edges[1] > 1.3 * edges[0]


def test_light_falls_from_a_side() -> None:
    """Some crops are lit unevenly: smoothly, and as bright as before on the whole."""
    rng = np.random.default_rng(0)
    drawn = [draw_variation(144, 64, rng) for _ in range(400)]
    shades = [variation.shade for variation in drawn if variation.shade is not None]
    assert 80 < len(shades) < 160
    assert 0.9 < np.mean([shade.mean() for shade in shades]) < 1.2
    assert np.mean([shade.max() / shade.min() > 1.5 for shade in shades]) > 0.3
    grey = np.full((144, 144, 3), 100, np.uint8)
    lit = replace(plain(drawn[0]), shade=shades[0]).apply(grey)
    assert lit.std() > 1
    assert np.abs(np.diff(lit.astype(int), axis=0)).max() < 12


def test_enlarged_crops_stay_within_the_face() -> None:
    """However far a crop is enlarged, hardly any of it is an invented border."""
    rng = np.random.default_rng(0)
    whole = np.ones((144, 144), np.float32)
    covered = [draw_variation(144, 64, rng, zoom=1.75).move(whole).mean() for _ in range(200)]
    assert min(covered) > 0.85
    assert np.mean(covered) > 0.98


def test_a_clip_keeps_its_form() -> None:
    """A clip comes back at the size asked for, RGB and uint8."""
    clip = varied(np.stack([FACE, FACE]), 64, np.random.default_rng(0))
    assert clip.shape == (2, 64, 64, 3)
    assert clip.dtype == np.uint8
