"""Tests of the score of a video."""

from __future__ import annotations

import pytest

from runtime.model.calibration import Calibration
from runtime.model.video_score import FaceLogits, face_p_fake, video_p_fake

PLAIN = Calibration()


def face_logits(face: int, logits: list[float], samples: int = 100, height: float = 100.0) -> FaceLogits:
    return FaceLogits(face=face, logits=logits, samples=samples, height=height)


def test_face_score_is_the_sigmoid_of_the_calibrated_mean() -> None:
    """Logits are averaged, not probabilities, so that one saturated window does not dominate."""
    calibration = Calibration(scale=2.0, offset=1.0)
    assert face_p_fake(face_logits(1, [-3.0, 5.0]), calibration) == pytest.approx(calibration.p_fake(1.0))


def test_video_score_is_the_largest_of_the_main_faces() -> None:
    """One fake among several main faces makes the video fake."""
    faces = [face_logits(1, [-4.0]), face_logits(2, [2.0]), face_logits(3, [1.0])]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(2.0))


def test_brief_and_small_faces_are_ignored() -> None:
    """Faces in less than half of the frames, or less than half as tall as the tallest, do not count."""
    faces = [face_logits(1, [-4.0]), face_logits(2, [9.0], samples=49), face_logits(3, [9.0], height=49.9)]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(-4.0))
    exactly_half = [face_logits(1, [-4.0]), face_logits(2, [3.0], samples=50, height=50.0)]
    assert video_p_fake(exactly_half, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(3.0))


def test_brief_large_detection_does_not_exclude_other_faces() -> None:
    """The tallest face is chosen among the faces in at least half of the frames."""
    faces = [face_logits(1, [-4.0], height=80.0), face_logits(2, [9.0], samples=5, height=900.0)]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(-4.0))


def test_face_split_into_short_tracks_is_scored() -> None:
    """If no track is in half of the frames, tracks of at least half the longest one count."""
    faces = [
        face_logits(1, [1.0], samples=30),
        face_logits(2, [3.0], samples=20),
        face_logits(3, [9.0], samples=10),
    ]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(3.0))


def test_video_without_a_window_has_no_score() -> None:
    """A video without a face, or with faces too briefly in view, has no score instead of a low one."""
    assert video_p_fake([], PLAIN, samples=100) is None
    assert video_p_fake([face_logits(1, [])], PLAIN, samples=100) is None
    assert face_p_fake(face_logits(1, []), PLAIN) is None
