"""Tests of the autoencoders and their fit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from train.errors import ConfigInvalid
from train.face_swap.autoencoder import Autoencoder
from train.face_swap.config import DESIGNS, GeneratorDesign, SwapConfig
from train.face_swap.fitting import distorted, draw, fit_generator, image_loss

TINY = GeneratorDesign(size=32, upsampler="pixel-shuffle", bottleneck=16, width=8)


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Faces of two videos; those of the second one are darker and mirrored."""
    portrait = np.asarray(astronaut())[30:200, 140:310]  # type: ignore[no-untyped-call]
    small = np.asarray(cv2.resize(portrait, (32, 32), interpolation=cv2.INTER_AREA), np.uint8)
    first = np.stack([np.roll(small, shift, axis=1) for shift in (-1, 0, 1)])
    return [first, np.ascontiguousarray(first[:, :, ::-1] // 2)]


@pytest.mark.parametrize("upsampler", ["transposed", "nearest", "pixel-shuffle", "bilinear"])
def test_every_upsampler(upsampler: str) -> None:
    """Each decoder draws faces of the size of the input, within 0..1, that differ from one another."""
    torch.manual_seed(0)
    design = GeneratorDesign(size=48, upsampler=upsampler, bottleneck=8, width=8)  # type: ignore[arg-type]
    model = Autoencoder(design, 2).eval()
    inputs = torch.rand(3, 3, 48, 48)
    first, second = model(inputs, 0), model(inputs, 1)
    assert first.shape == (3, 3, 48, 48)
    assert 0 <= first.min() <= first.max() <= 1
    assert not torch.equal(first, second)


def test_the_fit_learns_and_is_repeatable(
    faces: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
) -> None:
    """The loss falls; the same seed gives the same faces, another seed others; decoders draw their person."""
    losses: list[float] = []
    config = SwapConfig(steps=60, batch=8, lr=4e-3)
    model = fit_generator(TINY, faces, [1], config, seed=3, progress=losses.append)
    assert len(losses) == 60
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:3])
    drawn = draw(model, faces[0][0], 0)
    assert drawn.shape == (32, 32, 3)
    assert drawn.dtype == np.uint8
    # The source is dark, and the decoder has never seen a bright face.
    assert drawn.mean() < draw(model, faces[0][0], 1).mean()
    short = replace(config, steps=4)
    once, again, other = (
        draw(fit_generator(TINY, faces, [1], short, seed=seed), faces[0][0], 0) for seed in (3, 3, 4)
    )
    assert (once == again).all()
    assert (once != other).any()


def test_loss() -> None:
    """Equal faces have no loss; where the weight is zero a difference does not count."""
    first = torch.rand(2, 3, 32, 32)
    weight = torch.ones(32, 32)
    assert float(image_loss(first, first, weight)) == pytest.approx(0, abs=1e-4)
    second = first.clone()
    second[:, :, :4, :4] = 0
    assert float(image_loss(first, second, weight)) > 0.01
    weight[:12, :12] = 0
    assert float(image_loss(first, second, weight)) == pytest.approx(0, abs=1e-4)


def test_distortion() -> None:
    """Inputs differ from targets, and both from the faces; neither leaves the range of colours by much."""
    torch.manual_seed(1)
    batch = torch.rand(4, 3, 32, 32)
    inputs, targets = distorted(batch, 32)
    assert inputs.shape == targets.shape == batch.shape
    assert not torch.allclose(inputs, targets)
    assert 0 <= targets.min() <= targets.max() <= 1


def test_settings_out_of_range() -> None:
    """Impossible settings are refused."""
    with pytest.raises(ConfigInvalid, match="size must be a multiple of 16"):
        GeneratorDesign(size=50, upsampler="nearest", bottleneck=8, width=8)
    for wrong in (
        {"steps": 0},
        {"swap_share": 1.5},
        {"crf": 60},
        {"videos": 1},
        {"seconds": 0.0},
        {"designs": ()},
    ):
        with pytest.raises(ConfigInvalid, match=next(iter(wrong))):
            SwapConfig(**wrong)
    assert len({design.name for design in DESIGNS}) == len(DESIGNS)
