"""Tests of the score of a video."""

from __future__ import annotations

import pytest

from runtime.model.calibration import Calibration
from runtime.model.video_score import FaceLogits, counting_faces, face_p_fake, scored_windows, video_p_fake

PLAIN = Calibration()


def face_logits(face: int, logits: list[float], samples: int = 100) -> FaceLogits:
    return FaceLogits(face=face, logits=logits, samples=samples)


def test_face_score_is_the_sigmoid_of_the_calibrated_mean() -> None:
    """Logits are averaged, not probabilities, so that one saturated window does not dominate."""
    calibration = Calibration(scale=2.0, offset=1.0)
    assert face_p_fake(face_logits(1, [-3.0, 5.0]), calibration) == pytest.approx(calibration.p_fake(1.0))


def test_video_score_is_the_largest_of_the_faces() -> None:
    """One fake among several faces makes the video fake."""
    faces = [face_logits(1, [-4.0]), face_logits(2, [2.0]), face_logits(3, [1.0])]
    assert video_p_fake(faces, PLAIN) == pytest.approx(PLAIN.p_fake(2.0))


def test_brief_faces_do_not_count() -> None:
    """A face in view for less than half as long as the one in view longest does not count."""
    faces = [face_logits(1, [-4.0]), face_logits(2, [9.0], samples=49)]
    assert video_p_fake(faces, PLAIN) == pytest.approx(PLAIN.p_fake(-4.0))
    exactly_half = [face_logits(1, [-4.0]), face_logits(2, [3.0], samples=50)]
    assert video_p_fake(exactly_half, PLAIN) == pytest.approx(PLAIN.p_fake(3.0))


def test_faces_without_a_window_do_not_set_the_limit() -> None:
    """A still image that is in view all the time has no window, and excludes no other face."""
    faces = [face_logits(1, [], samples=100), face_logits(2, [3.0], samples=30)]
    assert [face.face for face in counting_faces(faces)] == [2]


def test_face_split_into_short_tracks_is_scored() -> None:
    """Tracks of at least half the longest one count, however short that is."""
    faces = [
        face_logits(1, [1.0], samples=30),
        face_logits(2, [3.0], samples=20),
        face_logits(3, [9.0], samples=10),
    ]
    assert video_p_fake(faces, PLAIN) == pytest.approx(PLAIN.p_fake(3.0))


def test_video_without_a_window_has_no_score() -> None:
    """A video without a face, or with faces too briefly in view, has no score instead of a low one."""
    assert video_p_fake([], PLAIN) is None
    assert video_p_fake([face_logits(1, [])], PLAIN) is None
    assert face_p_fake(face_logits(1, []), PLAIN) is None


def test_windows_that_are_scored() -> None:
    """One window ends with each sample from `min_frames` on; none is longer than the model's window."""
    assert scored_windows(6, window=4, min_frames=3) == [(0, 3), (0, 4), (1, 5), (2, 6)]
    assert scored_windows(2, window=4, min_frames=3) == []
