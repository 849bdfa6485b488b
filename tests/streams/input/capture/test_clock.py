"""Tests of capture times and of catching up."""

from __future__ import annotations

import pytest

from streams.input.capture.clock import CaptureClock, CatchUp


def test_the_smallest_delay_is_taken_for_the_path() -> None:
    """After a burst at connect the anchor settles on the fastest packet, and a late one shows as latency."""
    anchor = CaptureClock()
    for pts_s in (0.0, 0.04, 0.08):  # buffered while connecting: all arrive at once
        anchor.observe(10.0, pts_s)
    assert anchor.captured_s(0.08) == pytest.approx(10.0)
    anchor.observe(10.9, 0.12)
    assert anchor.captured_s(0.12) == pytest.approx(10.04, abs=1e-3)


def test_falling_behind_shows_as_growing_latency() -> None:
    """A reader at half the camera's speed sees its latency grow by as much as it falls behind."""
    anchor = CaptureClock()
    for second in range(11):
        anchor.observe(arrival_s=100.0 + 2 * second, pts_s=float(second))
    captured_s = anchor.captured_s(10.0)
    assert captured_s is not None
    assert 120.0 - captured_s == pytest.approx(10.0, abs=0.01)


def test_a_slow_camera_clock_is_no_latency() -> None:
    """A camera whose clock loses 50 parts per million for a day shows no latency."""
    anchor = CaptureClock()
    for second in range(0, 86400, 10):
        anchor.observe(arrival_s=float(second), pts_s=second * (1 - 50e-6))
    captured_s = anchor.captured_s(86390 * (1 - 50e-6))
    assert captured_s is not None
    assert 86390 - captured_s < 0.01


def test_a_source_that_starts_over_is_anchored_anew() -> None:
    """When media time goes back, latency does not jump by the difference."""
    anchor = CaptureClock()
    anchor.observe(50.0, 40.0)
    anchor.observe(51.0, 0.0)
    assert anchor.captured_s(0.0) == pytest.approx(51.0)


def test_nothing_is_known_before_the_first_packet() -> None:
    """Without a packet there is no capture time."""
    assert CaptureClock().captured_s(1.0) is None


def decode(catch_up: CatchUp, lags_s: list[float], *, gop: int = 25, fps: float = 25.0) -> list[int]:
    """Offer packets with these lags, a keyframe every `gop`, and return the numbers of those wanted."""
    return [
        number
        for number, lag_s in enumerate(lags_s)
        if catch_up.accepts(lag_s=lag_s, keyframe=number % gop == 0, now_s=number / fps)
    ]


def test_a_reader_that_keeps_up_decodes_everything() -> None:
    """Small delays leave nothing out."""
    assert decode(CatchUp(), [0.0, 0.3, 0.9, 0.1] * 10) == list(range(40))


def test_a_backlog_is_skipped_up_to_a_fresh_keyframe() -> None:
    """Over a second behind, all is left out until a keyframe that is fresh."""
    lags_s = [0.0] * 30 + [1.2] * 25 + [0.1] * 45
    assert decode(CatchUp(), lags_s) == [*range(30), *range(75, 100)]


def test_a_slow_decoder_stays_close_to_the_camera() -> None:
    """Decoding at half the camera's speed for minutes never exceeds the limit by more than a packet."""
    catch_up, now_s, lags_s = CatchUp(limit_s=1.0), 0.0, []
    for number in range(25 * 120):
        sent_s = number / 25
        now_s = max(now_s, sent_s)
        lags_s.append(now_s - sent_s)
        if catch_up.accepts(lag_s=lags_s[-1], keyframe=number % 10 == 0, now_s=now_s):
            now_s += 2 / 25
    assert max(lags_s) <= 1.0 + 2 / 25


def test_a_delay_of_the_network_is_lived_with() -> None:
    """When skipping does not help, the delay is accepted and pictures come again, delayed."""
    lags_s = [0.0] * 30 + [2.0] * 470
    wanted = decode(CatchUp(), lags_s)
    assert wanted[:30] == list(range(30))
    resumed = wanted[30]
    assert 30 + 3 * 25 <= resumed <= 30 + 4 * 25 + 25
    assert wanted[30:] == list(range(resumed, 500))


def test_a_stream_without_keyframes_is_joined_in_the_end() -> None:
    """A stream that refreshes bit by bit is not waited for for ever."""
    catch_up = CatchUp()
    assert catch_up.accepts(lag_s=0.0, keyframe=True, now_s=0.0)
    wanted = [n for n in range(1, 400) if catch_up.accepts(lag_s=2.0, keyframe=False, now_s=n / 25)]
    assert wanted
    assert wanted == list(range(wanted[0], 400))
