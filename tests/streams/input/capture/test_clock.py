"""Tests of capture times and of catching up after a delay."""

from __future__ import annotations

import pytest

from streams.input.capture.clock import CaptureClock, CatchUp, Pace


def test_the_smallest_delay_sets_the_offset() -> None:
    """After a burst of buffered packets the fastest one sets the offset; a late packet shows as latency."""
    capture_clock = CaptureClock()
    for pts_s in (0.0, 0.04, 0.08):  # buffered while connecting: all arrive at once
        capture_clock.observe(10.0, pts_s)
    assert capture_clock.captured_s(0.08) == pytest.approx(10.0)
    capture_clock.observe(10.9, 0.12)
    assert capture_clock.captured_s(0.12) == pytest.approx(10.04, abs=1e-3)


def test_falling_behind_shows_as_growing_latency() -> None:
    """The latency of a reader at half the camera's speed grows by the time it falls behind."""
    capture_clock = CaptureClock()
    for second in range(11):
        capture_clock.observe(arrival_s=100.0 + 2 * second, pts_s=float(second))
    captured_s = capture_clock.captured_s(10.0)
    assert captured_s is not None
    assert 120.0 - captured_s == pytest.approx(10.0, abs=0.01)


def test_a_slow_camera_clock_is_not_latency() -> None:
    """A camera clock that is slow by 50 parts per million causes no latency within a day."""
    capture_clock = CaptureClock()
    for second in range(0, 86400, 10):
        capture_clock.observe(arrival_s=float(second), pts_s=second * (1 - 50e-6))
    captured_s = capture_clock.captured_s(86390 * (1 - 50e-6))
    assert captured_s is not None
    assert 86390 - captured_s < 0.01


def test_a_restarted_source_gets_a_new_offset() -> None:
    """Media time that jumps back does not add the jump to the latency."""
    capture_clock = CaptureClock()
    capture_clock.observe(50.0, 40.0)
    capture_clock.observe(51.0, 0.0)
    assert capture_clock.captured_s(0.0) == pytest.approx(51.0)


def latencies_s(
    *, set_back_s: float, every: int, b_frames: int = 0, lag_s: float = 0.0, frames: int = 500
) -> list[float]:
    """Return the latency of each frame of a 25 fps camera whose clock is set back after every n-th frame.

    Packets come in decoding order, from frame 100 on with `lag_s` of delay.
    """
    capture_clock, latencies = CaptureClock(), []
    stamps_s = [0.04 * index - set_back_s * (index // every) for index in range(frames)]
    for start in range(0, frames - b_frames, b_frames + 1):
        group = range(start, start + b_frames + 1)
        for index in (group[-1], *group[:-1]):
            # A B-frame is sent right after the frame that it refers to.
            arrival_s = 50 + 0.04 * group[-1] + (lag_s if start >= 100 else 0.0)
            capture_clock.observe(arrival_s, stamps_s[index])
        for index in group:
            captured_s = capture_clock.present(stamps_s[index])
            assert captured_s is not None
            latencies.append(arrival_s - captured_s)
    return latencies


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("set_back_s", [0.041, 0.1, 0.5, 0.9, 1.5, 3600.0])
def test_a_clock_that_is_set_back_is_not_latency(set_back_s: float, b_frames: int) -> None:
    """Whatever the step, the latency stays that of the reordering."""
    latencies = latencies_s(set_back_s=set_back_s, every=200, b_frames=b_frames)
    assert max(latencies) <= 0.04 * b_frames + 0.045
    assert max(latencies[300:]) <= 0.04 * b_frames + 0.01


def test_steps_back_do_not_hide_a_delay() -> None:
    """A delay of 0.8 s is still seen after the clock was set back by half a second."""
    latencies = latencies_s(set_back_s=0.5, every=300, lag_s=0.8)
    assert latencies[400] == pytest.approx(0.8, abs=0.05)


def test_many_small_steps_back_do_not_become_latency() -> None:
    """A clock that steps back by a millisecond once a second loses 41 ms each time."""
    assert max(latencies_s(set_back_s=0.041, every=25, frames=2500)) < 0.06


def test_there_is_no_capture_time_before_the_first_packet() -> None:
    """`captured_s` returns None."""
    assert CaptureClock().captured_s(1.0) is None


def decode(catch_up: CatchUp, lags_s: list[float], *, gop: int = 25, fps: float = 25.0) -> list[int]:
    """Offer packets with these lags, one keyframe per `gop`; return the numbers of those accepted."""
    return [
        number
        for number, lag_s in enumerate(lags_s)
        if catch_up.accepts(lag_s=lag_s, keyframe=number % gop == 0, now_s=number / fps)
    ]


def test_a_reader_that_keeps_up_decodes_everything() -> None:
    """Lags below the limit skip nothing."""
    assert decode(CatchUp(), [0.0, 0.3, 0.9, 0.1] * 10) == list(range(40))


def test_packets_are_skipped_up_to_a_fresh_keyframe() -> None:
    """More than a second behind, all packets are skipped until a keyframe with little lag."""
    lags_s = [0.0] * 30 + [1.2] * 25 + [0.1] * 45
    assert decode(CatchUp(), lags_s) == [*range(30), *range(75, 100)]


def test_a_slow_decoder_stays_close_to_the_camera() -> None:
    """The lag of a decoder at half the camera's speed exceeds the limit by at most one packet."""
    catch_up, now_s, lags_s = CatchUp(limit_s=1.0), 0.0, []
    for number in range(25 * 120):
        sent_s = number / 25
        now_s = max(now_s, sent_s)
        lags_s.append(now_s - sent_s)
        if catch_up.accepts(lag_s=lags_s[-1], keyframe=number % 10 == 0, now_s=now_s):
            now_s += 2 / 25
    assert max(lags_s) <= 1.0 + 2 / 25


def test_a_network_delay_is_accepted() -> None:
    """If skipping does not reduce the lag, decoding resumes with the next keyframe after the patience."""
    lags_s = [0.0] * 30 + [2.0] * 470
    accepted = decode(CatchUp(), lags_s)
    assert accepted[:30] == list(range(30))
    resumed = accepted[30]
    assert 30 + 3 * 25 <= resumed <= 30 + 4 * 25 + 25
    assert accepted[30:] == list(range(resumed, 500))


def test_a_stream_without_keyframes_is_joined_anywhere() -> None:
    """With gradual refresh, decoding resumes after twice the patience."""
    catch_up = CatchUp()
    assert catch_up.accepts(lag_s=0.0, keyframe=True, now_s=0.0)
    accepted = [n for n in range(1, 400) if catch_up.accepts(lag_s=2.0, keyframe=False, now_s=n / 25)]
    assert accepted
    assert accepted == list(range(accepted[0], 400))


def test_a_fast_writer_is_held_to_real_time() -> None:
    """Media time runs ahead by the allowance at most; a jump starts the schedule again."""
    pace = Pace(allowance_s=2.0)
    assert [pace.delay_s(10.0, pts_s) for pts_s in (100.0, 100.9, 101.8, 102.5, 103.0)] == [
        0.0,
        0.0,
        0.0,
        pytest.approx(0.5),
        pytest.approx(1.0),
    ]
    assert pace.delay_s(11.0, 103.0) == 0.0
    assert pace.delay_s(11.0, 7.0) == 0.0
    assert pace.delay_s(11.0, 7.9) == 0.0
