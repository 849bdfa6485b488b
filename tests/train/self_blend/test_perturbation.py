"""Tests of the perturbation of faces."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from train.face_swap.alignment import AlignedFace, Image
from train.self_blend.noise import NoiseSettings
from train.self_blend.perturbation import FacePerturber, Perturbation, Region, region_mask

FACE = AlignedFace(to_frame=np.array([[160.0, 0, 143], [0, 160.0, 35]]), turn=0.0)
"""The face of the portrait: about 95 pixels wide and centred at (223, 115)."""
STILL = NoiseSettings(strength=0.0, memory=0.0)
NEUTRAL = Perturbation(
    decoder_side=288,
    enlargement=cv2.INTER_CUBIC,
    blur=0.0,
    sharpening=0.0,
    shift=0.0,
    rotation=0.0,
    scaling=0.0,
    placement_memory=0.0,
    deformation=STILL,
    light=STILL,
    texture=STILL,
    gain=STILL,
    matches_colours=False,
    colour_shift=(0.0, 0.0, 0.0),
    contrast=1.0,
    region="face",
    mask_scale=1.0,
    softness=0.25,
    opacity=1.0,
)
"""Perturbation that changes nothing."""
FLICKER = NoiseSettings(strength=2.0, memory=0.0, cells=5)


@pytest.fixture(scope="module")
def portrait() -> Image:
    """Return a frame with a face."""
    return np.asarray(astronaut()[:256, 90:410], np.uint8)  # type: ignore[no-untyped-call]


def position() -> AlignedFace:
    """Return the position of the face in the frame."""
    to_frame = FACE.to_frame.copy()
    to_frame[0, 2] -= 90
    return AlignedFace(to_frame=to_frame, turn=0.0)


def blended(
    portrait: Image, perturbation: Perturbation, frames: int = 1
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return frames of a still scene, perturbed one after the other, int64 `(frames, H, W, 3)`."""
    perturber = FacePerturber(perturbation, np.random.default_rng(0))
    changed = []
    for _ in range(frames):
        frame = portrait.copy()
        perturber.blend(frame, position())
        changed.append(frame)
    return np.stack(changed).astype(np.int64)


def test_nothing_drawn_changes_little(portrait: Image) -> None:
    """Without a perturbation only the warps there and back leave a difference."""
    difference = np.abs(blended(portrait, NEUTRAL)[0] - portrait)
    assert difference.mean() < 0.3


@pytest.mark.parametrize(
    "change",
    [
        {"decoder_side": 44},
        {"blur": 0.45, "decoder_side": 60},
        {"sharpening": 1.0},
        {"colour_shift": (6.0, 0.0, -6.0)},
        {"contrast": 0.93},
    ],
    ids=str,
)
def test_constant_changes_are_the_same_in_every_frame(portrait: Image, change: dict[str, float]) -> None:
    """Resolution, sharpness and colours change the face, but not over time."""
    first, second = blended(portrait, replace(NEUTRAL, **change), 2)  # type: ignore[arg-type]
    neutral = blended(portrait, NEUTRAL)[0]
    assert np.abs(first - neutral)[80:160, 100:170].mean() > 0.3
    assert (first == second).all()


@pytest.mark.parametrize(
    "change",
    [
        {"shift": 0.008},
        {"rotation": 0.008},
        {"scaling": 0.006},
        {"deformation": replace(FLICKER, strength=0.008)},
        {"light": FLICKER},
        {"texture": FLICKER},
        {"gain": NoiseSettings(strength=0.01, memory=0.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_noises_change_the_face_anew_in_every_frame(
    portrait: Image, change: dict[str, float | NoiseSettings]
) -> None:
    """A still face trembles or flickers; its surroundings stay untouched."""
    frames = blended(portrait, replace(NEUTRAL, **change), 4)  # type: ignore[arg-type]
    over_time = np.abs(np.diff(frames, axis=0)).mean(axis=(0, 3))
    assert over_time[80:160, 100:170].mean() > 0.25
    rows, columns = np.mgrid[: over_time.shape[0], : over_time.shape[1]]
    outside = np.hypot(rows - 120, columns - 133) > 65
    assert (frames[:, outside] == portrait[outside]).all()


def test_memory_slows_the_flicker(portrait: Image) -> None:
    """With memory consecutive frames are more similar."""
    changes = [
        np.abs(np.diff(blended(portrait, replace(NEUTRAL, light=replace(FLICKER, memory=memory)), 8), axis=0))
        for memory in (0.0, 0.9)
    ]
    assert changes[1].mean() < 0.7 * changes[0].mean()


def test_matched_colours_undo_a_shift(portrait: Image) -> None:
    """The copy gets the mean colour of the original; the shift is not applied."""
    perturbation = replace(NEUTRAL, matches_colours=True, colour_shift=(90.0, 0.0, 0.0), contrast=0.5)
    assert np.abs(blended(portrait, perturbation)[0] - portrait).mean() < 0.3


def test_opacity(portrait: Image) -> None:
    """A lower opacity changes the face less."""
    shifted = replace(NEUTRAL, colour_shift=(12.0, 12.0, 12.0))
    whole, half = (
        (blended(portrait, replace(shifted, opacity=opacity))[0] - portrait)[110:140, 120:146].mean()
        for opacity in (1.0, 0.5)
    )
    assert half == pytest.approx(whole / 2, abs=0.6)


@pytest.mark.parametrize(("region", "centre"), [("face", 0.53), ("mouth", 0.7), ("eyes", 0.42)])
def test_masks_of_the_regions(region: Region, centre: float) -> None:
    """Each mask is around its part of the face and follows a turned head."""
    frontal, turned = (region_mask(region, 100, turn, 1.0, 0.3) for turn in (0.0, 0.1))
    steps = (np.arange(100) + 0.5) / 100
    assert frontal.max() == pytest.approx(1, abs=0.01)
    assert frontal.sum(1) @ steps / frontal.sum() == pytest.approx(centre, abs=0.01)
    assert frontal.sum(0) @ steps / frontal.sum() == pytest.approx(0.5, abs=0.01)
    assert turned.sum(0) @ steps / turned.sum() > 0.52


def test_drawn_perturbations() -> None:
    """The draws are repeatable, differ from one another and stay in their ranges."""
    drawn = [Perturbation.draw(np.random.default_rng(seed)) for seed in range(300)]
    assert drawn[5] == Perturbation.draw(np.random.default_rng(5)) != drawn[6]
    assert min(p.decoder_side for p in drawn) >= 44
    assert max(p.decoder_side for p in drawn) <= 150
    assert {p.region for p in drawn} == {"face", "mouth", "eyes"}
    assert len({p.enlargement for p in drawn}) == 4
    assert all(0.75 <= p.opacity <= 1 and 0.15 <= p.softness <= 0.7 for p in drawn)
    assert 0.5 < np.mean([p.matches_colours for p in drawn]) < 0.7
    assert 0.4 < np.mean([p.sharpening == 0 for p in drawn]) < 0.6
