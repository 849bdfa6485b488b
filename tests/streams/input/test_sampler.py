"""Tests of the sampler: rates, intervals, gaps."""

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
    """Whatever the frame rate, intervals are 0.7 to 1.5 of nominal and only the first is a gap."""
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
    """A fast source is sampled at 8 Hz on average though its frames do not divide evenly."""
    times_s = taken(Sampler(8.0), at(fps, 20))
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    assert rate_hz == pytest.approx(8.0, rel=0.01)


def test_a_jittering_clock_does_not_change_the_rate() -> None:
    """Frames that come a few milliseconds early or late are sampled like those of a steady source."""
    jitter_s = itertools.cycle([0.0, 0.004, -0.003, 0.002, -0.004])
    times_s = taken(Sampler(8.0), [time_s + next(jitter_s) for time_s in at(24, 20)])
    assert (len(times_s) - 1) / (times_s[-1] - times_s[0]) == pytest.approx(8.0, rel=0.01)


def test_lost_frames_make_a_gap() -> None:
    """When frames are missing for longer than 1.5 intervals, the next one is due at once and says so."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2))
    sample = sampler.offer(2.5)
    assert sample is not None
    assert sample.gap


def test_going_back_is_a_gap_and_sampling_goes_on() -> None:
    """A source that starts over gives a gap and is then sampled as before."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2, start_s=100.0))
    sample = sampler.offer(0.0)
    assert sample is not None
    assert sample.gap
    assert len(taken(sampler, at(25, 2)[1:])) == pytest.approx(15, abs=1)


def test_the_same_picture_twice_is_taken_once() -> None:
    """A frame with the time of the one before is neither due nor a gap."""
    sampler = Sampler(8.0)
    assert sampler.offer(1.0) is not None
    assert sampler.offer(1.0) is None


def test_a_source_of_five_frames_a_second_is_too_slow() -> None:
    """A source whose every interval is a gap is reported, and no longer once it speeds up."""
    sampler = Sampler(8.0)
    taken(sampler, at(5, 2))
    assert sampler.too_slow
    assert sampler.fps == pytest.approx(5.0)
    taken(sampler, at(30, 2, start_s=2.0))
    assert not sampler.too_slow


def test_one_long_pause_is_not_a_slow_source() -> None:
    """A single interruption does not make a fast source too slow."""
    sampler = Sampler(8.0)
    taken(sampler, [*at(25, 1), *at(25, 1, start_s=9.0)])
    assert not sampler.too_slow


@pytest.mark.parametrize("sample_hz", [0.0, -8.0, float("nan")])
def test_a_rate_must_be_positive(sample_hz: float) -> None:
    """A rate that is no rate is refused."""
    with pytest.raises(ValueError, match="sample_hz"):
        Sampler(sample_hz)
