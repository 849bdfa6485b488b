"""Verdicts on one face: calibration, hysteresis, warming and expiry."""

from __future__ import annotations

import math

import pytest

from runtime.model.calibration import Calibration
from runtime.pipeline.decision import FaceDecision


@pytest.fixture
def decision() -> FaceDecision:
    return FaceDecision(Calibration(), min_fill=0.5, expiry_s=0.5)


def test_calibration_adds_the_bias_before_it_divides() -> None:
    """The documented formula is the one computed."""
    calibration = Calibration(temperature=2.0, bias=-1.0)
    assert calibration.p_fake(3.0) == pytest.approx(1 / (1 + math.exp(-(3.0 - 1.0) / 2.0)))
    assert calibration.p_fake(1.0) == 0.5
    assert Calibration().p_fake(9.0) == pytest.approx(0.99988, abs=1e-5)


def test_saturated_logits_stay_probabilities() -> None:
    """Huge logits neither overflow nor leave 0..1."""
    assert Calibration().p_fake(1e6) == 1.0
    assert Calibration().p_fake(-1e6) == 0.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_refused(logit: float) -> None:
    """A broken engine's output becomes an error, never a verdict."""
    with pytest.raises(ValueError, match="no score"):
        Calibration().p_fake(logit)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"bias": math.inf}, "bias"),
        ({"threshold_real": 0.7}, "thresholds"),
        ({"threshold_fake": 1.2}, "thresholds"),
        ({"hysteresis": 0.5}, "hysteresis"),
        ({"threshold_fpr1": 2.0}, "threshold_fpr1"),
    ],
)
def test_impossible_calibrations_are_refused(values: dict[str, float], words: str) -> None:
    """Each field is checked when the calibration is made, not when a face is judged."""
    with pytest.raises(ValueError, match=words):
        Calibration(**values)


def test_face_is_warming_until_the_window_holds_enough(decision: FaceDecision) -> None:
    """Below `min_fill` there is no score, whatever the head would say."""
    assert decision.update(None, 0.25, 0.0) == "warming"
    assert decision.update(0.9999, 0.4999, 0.1) == "warming"
    assert decision.update(0.9999, 0.5, 0.2) == "fake"


def test_fill_as_a_quotient_counts_whole_samples() -> None:
    """n/window reaches min_frames/window for every window, in spite of floating point."""
    for window in range(1, 90):
        for frames in range(1, window + 1):
            decision = FaceDecision(Calibration(), min_fill=frames * (1 / window), expiry_s=1)
            assert decision.update(0.5, frames / window, 0.0) == "uncertain"


def test_states_follow_the_thresholds(decision: FaceDecision) -> None:
    """Both thresholds belong to the decided side; between them nothing is claimed."""
    scale = Calibration(threshold_real=0.4, threshold_fake=0.6, hysteresis=0.0)
    for p_fake, state in [(0.61, "fake"), (0.59, "uncertain"), (0.41, "uncertain"), (0.39, "real")]:
        fresh = FaceDecision(scale, min_fill=0.5, expiry_s=0.5)
        assert fresh.update(p_fake, 1.0, 0.0) == state


def test_a_score_on_the_threshold_does_not_flicker(decision: FaceDecision) -> None:
    """A score that wavers within the hysteresis keeps its verdict; one that leaves it changes it."""
    wavering = [0.61, 0.595, 0.605, 0.58, 0.601]
    states = [decision.update(p, 1.0, 0.1 * i) for i, p in enumerate(wavering)]
    assert states == ["fake"] * 5
    assert decision.update(0.56, 1.0, 0.6) == "uncertain"
    assert decision.update(0.595, 1.0, 0.7) == "uncertain"
    assert decision.update(0.39, 1.0, 0.8) == "real"
    assert decision.update(0.42, 1.0, 0.9) == "real"
    assert decision.update(0.44, 1.0, 1.0) == "uncertain"


def test_one_threshold_for_both_sides_still_has_hysteresis() -> None:
    """Without an uncertain band the verdict changes side only beyond the hysteresis."""
    scale = Calibration(threshold_real=0.5, threshold_fake=0.5, hysteresis=0.03)
    decision = FaceDecision(scale, min_fill=0.5, expiry_s=9)
    scores = [0.51, 0.48, 0.46, 0.52, 0.54]
    states = [decision.update(p, 1.0, i) for i, p in enumerate(scores)]
    assert states == ["fake", "fake", "real", "real", "fake"]


def test_verdict_goes_stale_when_samples_stop(decision: FaceDecision) -> None:
    """An old verdict carries no score, and does not come back to life by itself."""
    decision.update(0.9999, 1.0, 10.0)
    assert decision.current(10.5) == "fake"
    assert decision.current(10.51) == "stale"
    decision.keep_alive(10.6)
    assert decision.current(10.6) == "stale"


def test_hysteresis_forgets_across_a_break(decision: FaceDecision) -> None:
    """What a face was called before its samples stopped does not colour what is said after."""
    decision.update(0.9999, 1.0, 0.0)
    assert decision.update(0.595, 1.0, 2.0) == "uncertain"
    decision.update(0.9999, 1.0, 2.1)
    decision.reset()
    assert decision.current(2.2) == "warming"
    assert decision.update(0.595, 1.0, 2.2) == "uncertain"


def test_samples_without_a_due_verdict_keep_it_alive(decision: FaceDecision) -> None:
    """A low verdict rate does not make a live face stale."""
    decision.update(0.9999, 1.0, 0.0)
    decision.keep_alive(0.4)
    decision.keep_alive(0.8)
    assert decision.current(1.2) == "fake"
    assert decision.current(1.4) == "stale"


def test_a_face_that_warms_and_stops_is_stale(decision: FaceDecision) -> None:
    """Warming does not outlive its samples either."""
    assert decision.current(5.0) == "warming"
    decision.update(None, 0.1, 5.0)
    assert decision.current(6.0) == "stale"
