"""Thresholds for one camera."""

from __future__ import annotations

import math

import pytest

from runtime.errors import CameraNotCalibrated
from runtime.model.calibration import Calibration
from runtime.model.camera_calibration import SHARE, camera_thresholds

CALIBRATION = Calibration(threshold_real=0.3, threshold_fake=0.6)
SECONDS = 20.0
STRETCH = int(SECONDS * 8)


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize("score", [0.01, 0.2, 0.3])
def test_low_scores_leave_the_thresholds_alone(score: float) -> None:
    """A camera with low scores is no reason to suspect it more."""
    found = camera_thresholds([score] * STRETCH, CALIBRATION, seconds=SECONDS)
    assert found.shift == pytest.approx(0, abs=1e-9)
    assert (found.thresholds.real, found.thresholds.fake) == (0.3, 0.6)


@pytest.mark.parametrize("score", [0.35, 0.5, 0.7, 0.85])
def test_both_thresholds_are_raised_by_the_same_log_odds(score: float) -> None:
    """The thresholds move as an offset of the logits would move the scores."""
    found = camera_thresholds([score] * STRETCH, CALIBRATION, seconds=SECONDS)
    assert found.shift == pytest.approx(SHARE * (log_odds(score) - log_odds(0.3)))
    assert log_odds(found.thresholds.real) - log_odds(0.3) == pytest.approx(found.shift, abs=0.01)
    assert log_odds(found.thresholds.fake) - log_odds(0.6) == pytest.approx(found.shift, abs=0.01)
    assert score < found.thresholds.fake


def test_mean_is_of_log_odds() -> None:
    """A saturated score counts, but is finite."""
    found = camera_thresholds([0.0, 1.0] * STRETCH, CALIBRATION, seconds=SECONDS)
    assert found.mean_p_fake == pytest.approx(0.5)


@pytest.mark.parametrize(("count", "seconds"), [(0, 0.0), (79, 9.9)])
def test_too_little_face_is_refused(count: int, seconds: float) -> None:
    """Less than ten seconds with a scored face say too little."""
    with pytest.raises(CameraNotCalibrated, match="a face was scored for"):
        camera_thresholds([0.5] * count, CALIBRATION, seconds=seconds)


def test_scores_of_a_fake_are_refused() -> None:
    """Thresholds with which nothing would be detected are not offered."""
    with pytest.raises(CameraNotCalibrated, match="too high for a genuine camera"):
        camera_thresholds([0.98] * STRETCH, CALIBRATION, seconds=SECONDS)
