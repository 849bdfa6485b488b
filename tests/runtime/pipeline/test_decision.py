"""Verdicts on one face: calibration, hysteresis, warming and expiry."""

from __future__ import annotations

import math

import pytest

from runtime.model.calibration import Calibration
from runtime.pipeline.decision import FaceDecision


def logit_of(p_fake: float) -> float:
    return math.log(p_fake / (1 - p_fake))


@pytest.fixture
def judge() -> FaceDecision:
    return FaceDecision(Calibration(), min_fill=0.5, expiry_s=0.5)


def test_calibration_adds_the_bias_before_it_divides() -> None:
    """The documented formula is the one computed."""
    calibration = Calibration(temperature=2.0, bias=-1.0)
    assert calibration.p_fake(3.0) == pytest.approx(1 / (1 + math.exp(-(3.0 - 1.0) / 2.0)))
    assert calibration.p_fake(1.0) == 0.5


def test_saturated_logits_stay_probabilities() -> None:
    """Huge logits neither overflow nor leave 0..1."""
    assert Calibration().p_fake(1e6) == 1.0
    assert Calibration().p_fake(-1e6) == 0.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_no_score_is_made_of_what_is_not_a_number(logit: float, judge: FaceDecision) -> None:
    """A broken engine's output becomes an error, never a verdict."""
    with pytest.raises(ValueError, match="no score"):
        judge.update(logit, 1.0, 0.0)


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


def test_face_is_warming_until_the_window_holds_enough(judge: FaceDecision) -> None:
    """Below `min_fill` there is no score, whatever the head would say."""
    assert judge.update(None, 0.25, 0.0).state == "warming"
    assert judge.update(9.0, 0.4999, 0.1).state == "warming"
    verdict = judge.update(9.0, 0.5, 0.2)
    assert verdict.state == "fake"
    assert verdict.p_fake == pytest.approx(0.99988, abs=1e-5)


def test_fill_as_a_quotient_counts_whole_samples() -> None:
    """n/window reaches min_frames/window for every window, in spite of floating point."""
    for window in range(1, 90):
        for frames in range(1, window + 1):
            judge = FaceDecision(Calibration(), min_fill=frames * (1 / window), expiry_s=1)
            assert judge.update(0.0, frames / window, 0.0).state == "uncertain"


def test_states_follow_the_thresholds(judge: FaceDecision) -> None:
    """Both thresholds belong to the decided side; between them nothing is claimed."""
    scale = Calibration(threshold_real=0.4, threshold_fake=0.6, hysteresis=0.0)
    for p_fake, state in [(0.61, "fake"), (0.59, "uncertain"), (0.41, "uncertain"), (0.39, "real")]:
        fresh = FaceDecision(scale, min_fill=0.5, expiry_s=0.5)
        assert fresh.update(logit_of(p_fake), 1.0, 0.0).state == state


def test_a_score_on_the_threshold_does_not_flicker(judge: FaceDecision) -> None:
    """A score that wavers within the hysteresis keeps its verdict; one that leaves it changes it."""
    wavering = [0.61, 0.595, 0.605, 0.58, 0.601]
    states = [judge.update(logit_of(p), 1.0, 0.1 * i).state for i, p in enumerate(wavering)]
    assert states == ["fake"] * 5
    assert judge.update(logit_of(0.56), 1.0, 0.6).state == "uncertain"
    assert judge.update(logit_of(0.595), 1.0, 0.7).state == "uncertain"
    assert judge.update(logit_of(0.39), 1.0, 0.8).state == "real"
    assert judge.update(logit_of(0.42), 1.0, 0.9).state == "real"
    assert judge.update(logit_of(0.44), 1.0, 1.0).state == "uncertain"


def test_one_threshold_for_both_sides_still_has_hysteresis() -> None:
    """Without an uncertain band the verdict changes side only beyond the hysteresis."""
    scale = Calibration(threshold_real=0.5, threshold_fake=0.5, hysteresis=0.03)
    judge = FaceDecision(scale, min_fill=0.5, expiry_s=9)
    scores = [0.51, 0.48, 0.46, 0.52, 0.54]
    states = [judge.update(logit_of(p), 1.0, i).state for i, p in enumerate(scores)]
    assert states == ["fake", "fake", "real", "real", "fake"]


def test_verdict_goes_stale_when_samples_stop(judge: FaceDecision) -> None:
    """An old verdict carries no score, and does not come back to life by itself."""
    judge.update(9.0, 1.0, 10.0)
    assert judge.current(10.5).state == "fake"
    stale = judge.current(10.51)
    assert (stale.state, stale.p_fake, stale.scored) == ("stale", None, False)
    judge.keep_alive(10.6)
    assert judge.current(10.6).state == "stale"


def test_hysteresis_forgets_across_a_break(judge: FaceDecision) -> None:
    """What a face was called before its samples stopped does not colour what is said after."""
    judge.update(9.0, 1.0, 0.0)
    assert judge.update(logit_of(0.595), 1.0, 2.0).state == "uncertain"
    judge.update(9.0, 1.0, 2.1)
    judge.reset()
    assert judge.current(2.2).state == "warming"
    assert judge.update(logit_of(0.595), 1.0, 2.2).state == "uncertain"


def test_samples_without_a_due_verdict_keep_it_alive(judge: FaceDecision) -> None:
    """A low verdict rate does not make a live face stale."""
    judge.update(9.0, 1.0, 0.0)
    judge.keep_alive(0.4)
    judge.keep_alive(0.8)
    assert judge.current(1.2).state == "fake"
    assert judge.current(1.4).state == "stale"


def test_a_face_that_warms_and_stops_is_stale(judge: FaceDecision) -> None:
    """Warming does not outlive its samples either."""
    assert judge.current(5.0).state == "warming"
    judge.update(None, 0.1, 5.0)
    assert judge.current(6.0).state == "stale"
