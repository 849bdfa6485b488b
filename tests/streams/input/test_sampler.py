"""Tests of the sampler: rates, intervals and gaps."""

from __future__ import annotations

import itertools

import pytest

from streams.input.continuity import MAX_BRIDGED_STEP, Spacing
from streams.input.sampler import MIN_STEP, Sampler


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
    """Intervals stay within 0.7 to 1.5 of nominal."""
    sampler = Sampler(sample_hz)
    times_s = taken(sampler, at(fps, 20))
    steps = [(b - a) * sample_hz for a, b in itertools.pairwise(times_s)]
    assert min(steps) >= MIN_STEP - 1e-4
    assert max(steps) <= 1.5 + 1e-4
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


def test_a_frame_after_lost_frames_is_due_at_once() -> None:
    """After more than 1.5 intervals without a frame, the next one is due."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2))
    assert sampler.offer(2.5)


@pytest.mark.parametrize("start_s", [100.0, 2.125])
def test_a_source_that_restarts_begins_another_timeline(start_s: float) -> None:
    """Media time that jumps back by a sample or more is due; sampling continues at the same rate."""
    sampler = Sampler(8.0)
    taken(sampler, at(25, 2, start_s=start_s))
    assert sampler.timeline == 0
    assert sampler.offer(start_s)
    assert sampler.timeline == 1
    assert len(taken(sampler, at(25, 2, start_s=start_s)[1:])) == pytest.approx(15, abs=1)


def test_a_repeated_frame_is_not_due() -> None:
    """A frame with the same time as the previous one is not due."""
    sampler = Sampler(8.0)
    assert sampler.offer(1.0)
    assert not sampler.offer(1.0)


@pytest.mark.parametrize("back_s", [0.001, 0.02, 0.06, 0.12])
def test_time_stamps_that_step_back_a_little_are_duplicates(back_s: float) -> None:
    """A clock that steps back by less than a sample, often, changes neither rate nor timeline."""
    sampler = Sampler(8.0)
    times_s, now_s = [], 0.0
    for number in range(500):
        now_s += -back_s if number % 10 == 9 else 0.04
        times_s.append(now_s)
    steps_s = [b - a for a, b in itertools.pairwise(taken(sampler, times_s))]
    assert max(steps_s) <= 1.5 / 8 + 1e-6
    assert (sampler.timeline, sampler.too_slow) == (0, False)


@pytest.mark.parametrize("fps", [5.0, 6.0, 7.5])
def test_a_source_of_five_frames_a_second_is_sampled(fps: float) -> None:
    """Every frame is due, and the source is not too slow."""
    sampler = Sampler(8.0)
    assert len(taken(sampler, at(fps, 4))) == int(4 * fps)
    assert not sampler.too_slow


@pytest.mark.parametrize("fps", [1.0, 2.0, 3.0, 4.0, 4.5])
def test_a_source_below_the_lowest_rate_is_too_slow(fps: float) -> None:
    """`too_slow` is set while no window can fill, and reset when the source speeds up."""
    sampler = Sampler(8.0)
    taken(sampler, at(fps, 8))
    assert sampler.too_slow
    assert sampler.fps == pytest.approx(fps)
    assert fps < Spacing(8.0).min_fps
    taken(sampler, at(30, 2, start_s=8.0))
    assert (sampler.too_slow, sampler.recoveries) == (False, 1)


@pytest.mark.parametrize(("burst", "too_slow"), [(2, True), (3, True), (4, False), (7, False), (12, False)])
def test_holes_of_one_sample_are_not_too_slow(burst: int, too_slow: bool) -> None:
    """Bursts with holes of 240 ms are sampled like a source that loses single samples, if two fit a burst."""
    sampler = Sampler(8.0)
    times_s = [group * (burst * 0.04 + 0.2) + index * 0.04 for group in range(40) for index in range(burst)]
    steps = [(b - a) * 8 for a, b in itertools.pairwise(taken(sampler, times_s))]
    assert sampler.too_slow == too_slow
    assert max(steps) <= MAX_BRIDGED_STEP


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
