"""Tests of the alignment of faces by their landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from runtime.engines.factory import detector_infer
from streams.faces.detector import Detector
from train.face_swap.alignment import FOUND, TEMPLATE, FaceAligner, Image, aligned_face


def placed(
    angle: float, side: float, shift: tuple[float, float]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the landmarks of a frontal face that is turned, scaled and moved."""
    points = np.empty((5, 2))
    points[list(FOUND)] = TEMPLATE
    points[2] = (0.5, 0.55)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(side * points @ rotation.T + shift)


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
def test_the_transform_is_recovered(angle: float) -> None:
    """Rotation, scale and shift of the landmarks are those of the aligned square."""
    face = aligned_face(placed(angle, 180.0, (70, 40)))
    assert face.side == pytest.approx(180)
    assert face.turn == pytest.approx(0, abs=1e-9)
    found = face.to_frame @ np.vstack([TEMPLATE.T, np.ones(4)])
    expected = placed(angle, 180.0, (70, 40))[list(FOUND)]
    assert np.allclose(found.T, expected)


def test_a_turned_head_has_its_nose_aside() -> None:
    """The nose to the right of the middle is a positive turn."""
    points = placed(0.3, 100.0, (20, 20))
    points[2] += 8 * np.array([np.cos(0.3), np.sin(0.3)])
    assert aligned_face(points).turn == pytest.approx(0.08)


def test_cut_puts_pixels_where_the_transform_says() -> None:
    """A square without rotation is the same as a slice of the frame, at the original size and at half."""
    rgb = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    face = aligned_face(placed(0.0, 64.0, (10, 6)))
    part = rgb[6:70, 10:74]
    assert np.abs(face.cut(rgb, 64).astype(int) - part).max() <= 1
    halved = part.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(face.cut(rgb, 32) - halved).max() <= 2


def test_a_real_face_is_found_and_followed() -> None:
    """The eyes of a portrait lie in the upper half of the aligned square, also when the face moves."""
    portrait: Image = np.asarray(astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    aligner = FaceAligner(Detector(detector_infer("onnxruntime")))
    assert aligner.align(np.full_like(portrait, 90)) is None
    # The first detection is made in the whole frame, the others in a crop.
    assert aligner.align(portrait) is not None
    first, second = aligner.align(portrait), aligner.align(np.roll(portrait, 12, axis=1))
    assert first is not None
    assert second is not None
    # The face of this portrait is about 95 pixels wide and centred at (223, 115).
    assert 120 < first.side < 200
    assert first.to_frame @ [0.5, 0.5, 1] == pytest.approx([223, 115], abs=15)
    assert second.to_frame @ [0.5, 0.5, 1] == pytest.approx(first.to_frame @ [0.5, 0.5, 1] + [12, 0], abs=4)
    patches = [
        face.cut(image, 48).astype(int)
        for face, image in ((first, portrait), (second, np.roll(portrait, 12, axis=1)))
    ]
    assert np.corrcoef(patches[0].ravel(), patches[1].ravel())[0, 1] > 0.9
