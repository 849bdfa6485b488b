"""Tests of the verdict rate."""

from __future__ import annotations

import itertools

import pytest

from runtime.pipeline.verdict_rate import VerdictRate


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 3.0, 5.0, 7.0, 7.9])
@pytest.mark.parametrize("sample_hz", [8.0, 8.333])
def test_average_rate_equals_the_requested_rate(rate_hz: float, sample_hz: float) -> None:
    """Over one minute the average matches, and no interval is longer than the nominal one plus one sample."""
    rate = VerdictRate(rate_hz)
    times = [i / sample_hz for i in range(int(60 * sample_hz)) if rate.due(100 + i / sample_hz)]
    assert len(times) == pytest.approx(60 * rate_hz, abs=1.5)
    intervals = [after - before for before, after in itertools.pairwise(times)]
    assert max(intervals) < 1 / rate_hz + 1 / sample_hz


def test_missed_verdicts_are_not_made_up_for() -> None:
    """The first sample after a gap or a jump back is due at once, and the rate continues from there."""
    rate = VerdictRate(2.0)
    times = [0.0, 0.25, 0.5, 9.0, 9.25, 9.5, 9.75, 1.0, 1.25]
    assert [time for time in times if rate.due(time)] == [0.0, 0.5, 9.0, 9.5, 1.0]


def test_rate_must_be_positive() -> None:
    """A rate of 0 raises an error."""
    with pytest.raises(ValueError, match="positive"):
        VerdictRate(0)
