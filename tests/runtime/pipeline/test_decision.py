"""Tests of the decision on one face (warm-up, hysteresis, expiry) and of the verdict rate."""

from __future__ import annotations

import itertools

import pytest

from runtime.model.calibration import Calibration
from runtime.pipeline.decision import FaceDecision, RateLimit


@pytest.fixture
def decision() -> FaceDecision:
    return FaceDecision(Calibration(), min_fill=0.5, expiry_s=0.5)


def test_face_is_warming_until_the_window_is_full_enough(decision: FaceDecision) -> None:
    """Below `min_fill` the state is `warming`, whatever the score."""
    assert decision.update(None, 0.25, 0.0) == "warming"
    assert decision.update(0.9999, 0.4999, 0.1) == "warming"
    assert decision.update(0.9999, 0.5, 0.2) == "fake"


def test_window_fill_counts_whole_samples() -> None:
    """The fill n/window reaches min_frames/window for every window, despite floating-point rounding."""
    for window in range(1, 90):
        for frames in range(1, window + 1):
            decision = FaceDecision(Calibration(), min_fill=frames * (1 / window), expiry_s=1)
            assert decision.update(0.5, frames / window, 0.0) == "uncertain"


def test_states_follow_the_thresholds() -> None:
    """Beyond the thresholds the state is `fake` or `real`, between them `uncertain`."""
    calibration = Calibration(threshold_real=0.4, threshold_fake=0.6, hysteresis=0.0)
    for p_fake, state in [(0.61, "fake"), (0.59, "uncertain"), (0.41, "uncertain"), (0.39, "real")]:
        decision = FaceDecision(calibration, min_fill=0.5, expiry_s=0.5)
        assert decision.update(p_fake, 1.0, 0.0) == state


def test_hysteresis_keeps_the_state_near_a_threshold(decision: FaceDecision) -> None:
    """A score that varies within the hysteresis keeps the state; one outside changes it."""
    scores = [0.61, 0.595, 0.605, 0.58, 0.601]
    states = [decision.update(p, 1.0, 0.1 * i) for i, p in enumerate(scores)]
    assert states == ["fake"] * 5
    assert decision.update(0.56, 1.0, 0.6) == "uncertain"
    assert decision.update(0.595, 1.0, 0.7) == "uncertain"
    assert decision.update(0.39, 1.0, 0.8) == "real"
    assert decision.update(0.42, 1.0, 0.9) == "real"
    assert decision.update(0.44, 1.0, 1.0) == "uncertain"


def test_hysteresis_with_equal_thresholds() -> None:
    """With equal thresholds the state changes between real and fake only beyond the hysteresis."""
    calibration = Calibration(threshold_real=0.5, threshold_fake=0.5, hysteresis=0.03)
    decision = FaceDecision(calibration, min_fill=0.5, expiry_s=9)
    scores = [0.51, 0.48, 0.46, 0.52, 0.54]
    states = [decision.update(p, 1.0, i) for i, p in enumerate(scores)]
    assert states == ["fake", "fake", "real", "real", "fake"]


def test_state_expires_when_samples_stop(decision: FaceDecision) -> None:
    """After `expiry_s` the state is stale, and a later sample without a score does not revive it."""
    decision.update(0.9999, 1.0, 10.0)
    assert decision.current(10.5) == "fake"
    assert decision.current(10.51) == "stale"
    decision.keep_alive(10.6)
    assert decision.current(10.6) == "stale"


def test_hysteresis_does_not_span_a_break(decision: FaceDecision) -> None:
    """The state from before an expiry or a reset does not influence the next one."""
    decision.update(0.9999, 1.0, 0.0)
    assert decision.update(0.595, 1.0, 2.0) == "uncertain"
    decision.update(0.9999, 1.0, 2.1)
    decision.reset()
    assert decision.current(2.2) == "warming"
    assert decision.update(0.595, 1.0, 2.2) == "uncertain"


def test_samples_without_a_score_keep_the_state_alive(decision: FaceDecision) -> None:
    """With a low verdict rate a face does not become stale between two verdicts."""
    decision.update(0.9999, 1.0, 0.0)
    decision.keep_alive(0.4)
    decision.keep_alive(0.8)
    assert decision.current(1.2) == "fake"
    assert decision.current(1.4) == "stale"


def test_warming_expires_too(decision: FaceDecision) -> None:
    """A face whose samples stop while it warms up becomes stale."""
    assert decision.current(5.0) == "warming"
    decision.update(None, 0.1, 5.0)
    assert decision.current(6.0) == "stale"


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 3.0, 5.0, 7.0, 7.9])
@pytest.mark.parametrize("sample_hz", [8.0, 8.333])
def test_average_verdict_rate(rate_hz: float, sample_hz: float) -> None:
    """The average is the requested rate; no interval is longer than the nominal one plus one sample."""
    rate = RateLimit(rate_hz)
    times = [i / sample_hz for i in range(int(60 * sample_hz)) if rate.due(100 + i / sample_hz)]
    assert len(times) == pytest.approx(60 * rate_hz, abs=1.5)
    intervals = [after - before for before, after in itertools.pairwise(times)]
    assert max(intervals) < 1 / rate_hz + 1 / sample_hz


def test_missed_verdicts_are_not_made_up_for() -> None:
    """The first sample after a gap or a jump back is due at once, and the rate continues from there."""
    rate = RateLimit(2.0)
    times = [0.0, 0.25, 0.5, 9.0, 9.25, 9.5, 9.75, 1.0, 1.25]
    assert [time for time in times if rate.due(time)] == [0.0, 0.5, 9.0, 9.5, 1.0]


def test_verdict_rate_must_be_positive() -> None:
    """A rate of 0 raises an error."""
    with pytest.raises(ValueError, match="positive"):
        RateLimit(0)
