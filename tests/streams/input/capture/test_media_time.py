"""Tests of presentation times and of the check of a source's clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.input.capture.media_time import ClockCheck, PresentationTimes


def times(stamps: Sequence[int | None], *, delay: int = 0, start: int | None = 0) -> list[int | None]:
    """Return the presentation times of frames of duration 1 with these stamps.

    Packets come in the order of their stamps; the decoder returns the first frame `delay` packets later.
    """
    presentation = PresentationTimes(start)
    packets = iter([*sorted(pts for pts in stamps if pts is not None)] if delay else stamps)
    for _ in range(delay):
        presentation.feed(next(packets))
    presented = []
    for pts in stamps:
        presentation.feed(next(packets, None))
        presented.append(presentation.present(pts, duration=1))
    return presented


@pytest.mark.parametrize(
    ("stamps", "delay", "expected"),
    [
        ([0, 1, 2], 0, [0, 1, 2]),
        ([0, 1, 3], 0, [0, 1, 3]),
        ([None, None], 0, [0, 1]),
        ([5, None, None], 0, [5, 6, 7]),
        # AVI with B-frames: H.264, and packed MPEG-4.
        ([1, 3, 4, 2, 6, 7, 5, 8, 9], 2, [1, 3, 4, 2, 5, 6, 7, 8, 9]),
        ([1, 3, 2, 5, 4, 7, 6], 1, [1, 3, 2, 4, 5, 6, 7]),
        # A camera whose clock is set back, or has small steps.
        ([10, 11, 4, 5, 6], 0, [10, 11, 4, 5, 6]),
        ([10, 9, 14, 13, 18], 0, [10, 9, 14, 13, 18]),
        ([3, 3, 3], 0, [3, 3, 3]),
    ],
)
def test_time_stamps_are_sorted_once_one_steps_back(
    stamps: list[int | None], delay: int, expected: list[int]
) -> None:
    """Each frame has its own time stamp as long as they advance, then the smallest one without a frame."""
    assert times(stamps, delay=delay) == expected


@pytest.mark.parametrize(
    ("packets", "frames", "expected"),
    [
        # In decoding order, in containers that have no presentation times.
        ([0, 1, 2, 3, 4, 5], [0, 3, 1, 2, 5, 4], [0, 1, 2, 3, 4, 5]),
        # Presentation times, which the packets show by stepping back; packet 3 is damaged and has no frame.
        ([0, 3, 1, 2, 6, 4, 5], [0, 1, 2, 4, 5, 6], [0, 1, 2, 4, 5, 6]),
    ],
)
def test_frames_of_a_codec_that_reorders_are_sorted_from_the_start(
    packets: list[int], frames: list[int], expected: list[int]
) -> None:
    """The first frames have the right times too, unless the time stamps are right already."""
    presentation = PresentationTimes(0, reorders=True)
    stamps = iter(packets)
    for _ in range(3):
        presentation.feed(next(stamps))
    presented = []
    for pts in frames:
        presentation.feed(next(stamps, None))
        presented.append(presentation.present(pts, duration=1))
    assert presented == expected


@pytest.mark.fuzz
@given(st.lists(st.permutations(range(4)), min_size=1, max_size=20), st.integers(4, 16))
def test_any_reordering_is_undone(groups: list[list[int]], delay: int) -> None:
    """After the first step back, times advance by one from frame to frame, but for those already given."""
    stamps = [4 * number + place for number, group in enumerate(groups) for place in group]
    presented = times(stamps, delay=min(delay, len(stamps)))
    back = next((i for i in range(1, len(stamps)) if stamps[i] < stamps[i - 1]), len(stamps))
    assert sorted(time for time in presented if time is not None) == sorted(stamps)
    assert presented[back:] == sorted(set(stamps) - set(stamps[:back]))


def test_packets_without_a_frame_do_not_delay_later_times() -> None:
    """The time stamp of a lost frame is forgotten."""
    presentation = PresentationTimes(0)
    presentation.feed(1)  # its frame is damaged
    for pts in range(100, 200):
        presentation.feed(pts)
        assert presentation.present(pts, duration=1) == pts
    presentation.feed(150)
    assert presentation.present(150, duration=1) == 150


def test_a_live_frame_without_a_time_has_none() -> None:
    """The first frames of an RTP stream can come before its clock is known."""
    assert times([None, 7, None], start=None) == [None, 7, 8]


def check(rate: float, *, seconds: float = 30.0, fps: float = 25.0, offset_s: float = 0.0) -> float | None:
    """Return after how many seconds a clock of this rate is found wrong; None if never."""
    clock_check = ClockCheck()
    for number in range(int(seconds * fps)):
        now_s = number / fps
        if clock_check.observe(100 + now_s, offset_s + rate * now_s):
            return now_s
    return None


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.2, 5.0, 10.0, 100.0, -1.0])
def test_a_grossly_wrong_clock_is_found_in_three_seconds(rate: float) -> None:
    """Also at two frames per second it takes only twice as long."""
    found_s = check(rate)
    assert found_s is not None
    assert found_s <= 3.2
    assert (check(rate, fps=2.0) or 99) <= 6.0


@pytest.mark.parametrize("rate", [0.5, 0.75, 1.3, 2.0, 3.0])
def test_a_slightly_wrong_clock_is_found_in_twenty_seconds(rate: float) -> None:
    """Congestion does not last that long."""
    found_s = check(rate)
    assert found_s is not None
    assert 19 <= found_s <= 21.5


@pytest.mark.parametrize("rate", [0.9, 0.999, 1.0, 1.001, 1.1])
def test_a_right_clock_is_not_suspected(rate: float) -> None:
    """Whatever its start."""
    assert check(rate, offset_s=95_000.0) is None


def test_bursts_stalls_and_steps_are_not_a_wrong_clock() -> None:
    """Ten seconds of video at once, a stall of 1.5 s, a clock set back and forth, and random delays."""
    random.seed(3)
    clock_check = ClockCheck()
    arrival_s, set_back_s = 0.0, 0.0
    for number in range(25 * 60):
        media_s = number / 25
        arrival_s = max(arrival_s, media_s - 10.0 + random.random() * 0.3)
        if number % 250 == 249:
            arrival_s += 1.5
        if number % 400 == 399:
            set_back_s = 5.0 - set_back_s
        assert clock_check.observe(arrival_s, media_s - set_back_s) is None


@pytest.mark.parametrize(
    ("stamps_s", "words"),
    [
        (itertools.repeat(3.0), "do not advance"),
        (itertools.count(0.0, 0.4), "10 times real time"),
        (itertools.count(0.0, 0.004), "0.1 times real time"),
        (itertools.cycle([*[0.0] * 30, *[500.0] * 26]), "jump back and forth"),
    ],
)
def test_the_reason_describes_the_fault_of_the_clock(stamps_s: itertools.count[float], words: str) -> None:
    """The reason says how the time stamps differ from real time."""
    clock_check = ClockCheck()
    reasons = [clock_check.observe(number / 25, next(stamps_s)) for number in range(100)]
    assert words in str(next(reason for reason in reasons if reason))
