"""The score of a video, from the windows of its faces."""

from __future__ import annotations

import pytest

from runtime.model.calibration import Calibration
from runtime.model.video_score import FaceRecord, face_p_fake, video_p_fake

PLAIN = Calibration()


def record(face: int, logits: list[float], samples: int = 100, height: float = 100.0) -> FaceRecord:
    return FaceRecord(face=face, logits=logits, samples=samples, height=height)


def test_face_score_is_the_sigmoid_of_the_calibrated_mean() -> None:
    """Logits are averaged, not probabilities: one saturated window cannot decide alone."""
    calibration = Calibration(scale=2.0, offset=1.0)
    assert face_p_fake(record(1, [-3.0, 5.0]), calibration) == pytest.approx(calibration.p_fake(1.0))


def test_the_most_suspicious_of_the_faces_that_matter_decides() -> None:
    """One forged participant makes the video forged."""
    faces = [record(1, [-4.0]), record(2, [2.0]), record(3, [1.0])]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(2.0))


def test_passers_by_and_background_faces_do_not_count() -> None:
    """Seen less than half the time, or less than half as high as the largest: left out."""
    faces = [record(1, [-4.0]), record(2, [9.0], samples=49), record(3, [9.0], height=49.9)]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(-4.0))
    exactly_half = [record(1, [-4.0]), record(2, [3.0], samples=50, height=50.0)]
    assert video_p_fake(exactly_half, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(3.0))


def test_a_short_huge_detection_does_not_set_the_scale() -> None:
    """Only faces that last say how large faces are in this video."""
    faces = [record(1, [-4.0], height=80.0), record(2, [9.0], samples=5, height=900.0)]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(-4.0))


def test_a_face_broken_into_short_tracks_is_still_scored() -> None:
    """Where no track lasts half the video, the longest track is the measure."""
    faces = [
        record(1, [1.0], samples=30),
        record(2, [3.0], samples=20),
        record(3, [9.0], samples=10),
    ]
    assert video_p_fake(faces, PLAIN, samples=100) == pytest.approx(PLAIN.p_fake(3.0))


def test_no_window_is_no_score() -> None:
    """A video without a face, or with faces too short to judge, has no score rather than a low one."""
    assert video_p_fake([], PLAIN, samples=100) is None
    assert video_p_fake([record(1, [])], PLAIN, samples=100) is None
    assert face_p_fake(record(1, []), PLAIN) is None
