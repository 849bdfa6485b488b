"""Tests of pasting drawn faces into frames."""

from __future__ import annotations

import numpy as np
import pytest

from train.face_swap.alignment import AlignedFace
from train.face_swap.blending import face_mask, match_colours, paste_face
from train.face_swap.config import GeneratorDesign

DESIGN = GeneratorDesign(size=64, upsampler="nearest", bottleneck=8, width=8)


def smooth(seed: int, height: int, width: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return a smooth colourful image."""
    steps = np.random.default_rng(seed).uniform(0.02, 0.08, (3, 2))
    rows, columns = np.mgrid[:height, :width]
    waves = [120 + 50 * np.sin(a * rows + b * columns) for a, b in steps]
    return np.stack(waves, axis=-1).astype(np.uint8)


def position(angle: float = 0.3, side: float = 100.0) -> AlignedFace:
    """Return a rotated face in the middle of a frame of 240 x 320."""
    linear = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return AlignedFace(to_frame=np.column_stack([linear, [160, 120] - linear @ [0.5, 0.5]]), turn=0.0)


def test_pasting_the_original_changes_little() -> None:
    """A face that is drawn as it is lands at its place, in its colours; the surroundings stay untouched."""
    frame, face = smooth(1, 240, 320), position()
    changed = frame.copy()
    paste_face(changed, face, face.cut(frame, 64), DESIGN)
    difference = np.abs(changed.astype(int) - frame)
    assert difference.mean() < 0.5
    assert difference.max() < 12
    rows, columns = np.mgrid[:240, :320]
    assert difference[np.hypot(rows - 120, columns - 160) > 52].max() == 0


def test_pasting_another_face_changes_the_middle_only() -> None:
    """Another face is visible inside the mask, in the colours of the frame."""
    frame, face = smooth(1, 240, 320), position()
    changed = frame.copy()
    paste_face(changed, face, smooth(2, 64, 64) // 3, DESIGN)
    middle = np.s_[105:135, 145:175]
    assert np.abs(changed[middle].astype(int) - frame[middle]).mean() > 5
    assert changed[middle].mean() == pytest.approx(frame[middle].mean(), rel=0.35)
    assert (changed[:50] == frame[:50]).all()


@pytest.mark.parametrize("shift", [(-150, 0), (0, 130), (900, 900)])
def test_faces_partly_and_wholly_outside(shift: tuple[int, int]) -> None:
    """A face at the border of the frame, or outside it, is no error."""
    frame = smooth(1, 240, 320)
    at = position()
    at.to_frame[:, 2] += shift
    paste_face(frame, at, smooth(2, 64, 64), DESIGN)


def test_mask() -> None:
    """The mask is whole in the middle, soft at its edge, and narrower for a turned head."""
    frontal, turned = face_mask(64, 0.0, 1.0, 0.25), face_mask(64, 0.15, 1.0, 0.25)
    assert frontal[34, 32] == 1
    assert frontal[0].max() == frontal[:, 0].max() == 0
    assert ((frontal > 0) & (frontal < 1)).any()
    assert turned.sum() < frontal.sum()
    columns = np.arange(64)
    assert (turned.sum(0) @ columns) / turned.sum() > (frontal.sum(0) @ columns) / frontal.sum() + 2


def test_matched_colours() -> None:
    """The mean colours become those of the original, within the mask."""
    drawn, original = smooth(3, 64, 64) // 2, smooth(4, 64, 64)
    mask = face_mask(64, 0.0, 1.0, 0.25)
    weight = mask[..., None] / mask.sum()
    matched = match_colours(drawn, original, mask)
    assert (weight * matched).sum((0, 1)) == pytest.approx((weight * original).sum((0, 1)), abs=8)
