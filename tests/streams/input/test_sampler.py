"""Tests of the sampler: rates, intervals and gaps."""

from __future__ import annotations

import itertools

import pytest

from streams.input.sampler import MAX_STEP, MIN_STEP, Sampler


def taken(sampler: Sampler, times_s: list[float]) -> list[float]:
    """Offer frames and return the times of those that were due."""
    return [time_s for time_s in times_s if sampler.offer(time_s)]


def at(fps: float, seconds: float, start_s: float = 0.0) -> list[float]:
    """Return the times of a steady source's frames."""
    return [start_s + index / fps for index in range(int(fps * seconds))]


@pytest.mark.parametrize("sample_hz", [8.0, 10.0])
@pytest.mark.parametrize(
    "fps", [8, 10, 12, 12.5, 14, 15, 20, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60, 120]
)
def test_intervals_stay_acceptable_at_any_frame_rate(sample_hz: float, fps: float) -> None:
    """Intervals stay within 0.7 to 1.5 of nominal, and only the first sample is a gap."""
    sampler = Sampler(sample_hz)
    times_s = at(fps, 20)
    samples = [(time_s, sample) for time_s in times_s if (sample := sampler.offer(time_s))]
    steps = [(b - a) * sample_hz for (a, _), (b, _) in itertools.pairwise(samples)]
    assert min(steps) >= MIN_STEP - 1e-4
    assert max(steps) <= MAX_STEP + 1e-4
    assert [sample.gap for _, sample in samples] == [True] + [False] * (len(samples) - 1)
    assert not sampler.too_slow


@pytest.mark.parametrize("fps", [20, 24, 25, 30000 / 1001, 30, 50, 60, 120])
def test_the_average_rate_is_the_nominal_one(fps: float) -> None:
    """A source above 16 fps is sampled at 8 Hz on average at any frame rate."""
    times_s = taken(Sampler(8.0), at(fps, 20))
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    assert rate_hz == pytest.approx(8.0, rel=0.01)


def test_jitter_does_not_change_the_rate() -> None:
    """Frame times that vary by a few milliseconds are sampled at the nominal rate."""
    jitter_s = itertools.cycle([0.0, 0.004, -0.003, 0.002, -0.004])
    times_s = taken(Sampler(8.0), [time_s + next(jitter_s) for time_s in at(24, 20)])
    assert (len(times_s) - 1) / (times_s[-1] - times_s[0]) == pytest.approx(8.0, rel=0.01)


def test_lost_frames_make_a_gap() -> None:
    """After more than 1.5 intervals without a frame, the next one is due at once, with a gap."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2))
    sample = sampler.offer(2.5)
    assert sample is not None
    assert sample.gap


def test_a_source_that_restarts_has_a_gap() -> None:
    """Media time that jumps back gives a gap; sampling continues at the same rate."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2, start_s=100.0))
    sample = sampler.offer(0.0)
    assert sample is not None
    assert sample.gap
    assert len(taken(sampler, at(25, 2)[1:])) == pytest.approx(15, abs=1)


def test_a_repeated_frame_is_not_due() -> None:
    """A frame with the same time as the previous one is neither due nor a gap."""
    sampler = Sampler(8.0)
    assert sampler.offer(1.0) is not None
    assert sampler.offer(1.0) is None


def test_a_source_of_five_frames_a_second_is_too_slow() -> None:
    """`too_slow` is set while every interval is a gap, and reset when the source speeds up."""
    sampler = Sampler(8.0)
    taken(sampler, at(5, 2))
    assert sampler.too_slow
    assert sampler.fps == pytest.approx(5.0)
    taken(sampler, at(30, 2, start_s=2.0))
    assert not sampler.too_slow


def test_one_long_pause_is_not_too_slow() -> None:
    """A single interruption of a fast source does not set `too_slow`."""
    sampler = Sampler(8.0)
    taken(sampler, [*at(25, 1), *at(25, 1, start_s=9.0)])
    assert not sampler.too_slow


@pytest.mark.parametrize("sample_hz", [0.0, -8.0, float("nan")])
def test_sample_hz_must_be_positive(sample_hz: float) -> None:
    """Zero, negative and NaN rates raise."""
    with pytest.raises(ValueError, match="sample_hz"):
        Sampler(sample_hz)
