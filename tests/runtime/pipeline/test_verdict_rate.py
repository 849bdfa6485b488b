"""Fewer verdicts than samples, at the rate that was asked for."""

from __future__ import annotations

import itertools

import pytest

from runtime.pipeline.verdict_rate import VerdictRate


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 3.0, 5.0, 7.0, 7.9])
@pytest.mark.parametrize("sample_hz", [8.0, 8.333])
def test_the_rate_is_kept(rate_hz: float, sample_hz: float) -> None:
    """Over a minute the verdicts average the rate, and no hole is longer than a step and a sample."""
    rate = VerdictRate(rate_hz)
    chosen = [i / sample_hz for i in range(int(60 * sample_hz)) if rate.due(100 + i / sample_hz)]
    assert len(chosen) == pytest.approx(60 * rate_hz, abs=1.5)
    holes = [after - before for before, after in itertools.pairwise(chosen)]
    assert max(holes) < 1 / rate_hz + 1 / sample_hz


def test_after_a_hole_nothing_is_caught_up() -> None:
    """A sample after a pause is judged at once, and the next ones at the old rate; so after a jump back."""
    rate = VerdictRate(2.0)
    times = [0.0, 0.25, 0.5, 9.0, 9.25, 9.5, 9.75, 1.0, 1.25]
    assert [time for time in times if rate.due(time)] == [0.0, 0.5, 9.0, 9.5, 1.0]


def test_no_rate_is_no_pace() -> None:
    """A rate that is not positive is refused."""
    with pytest.raises(ValueError, match="positive"):
        VerdictRate(0)
