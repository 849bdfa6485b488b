"""Tests of continuity: which samples share a segment, for chosen and for arbitrary sequences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.input.capture.display_transform import FrameGeometry, Orientation
from streams.input.continuity import MAX_BRIDGED_STEP, MAX_STEP, Continuity, Origin
from streams.input.frame_queue import FrameQueue
from streams.input.sampler import ThinnedSampler

HZ = 8.0
GEOMETRY = FrameGeometry(640, 360, Orientation.UPRIGHT, Fraction(1))
ORIGIN = Origin(connection=1, timeline=0, recoveries=0, geometry=GEOMETRY)


def segments(steps: Sequence[float]) -> list[int]:
    """Return the segments of samples at these times, in nominal intervals."""
    continuity = Continuity(HZ)
    return [continuity.deliver(step / HZ, ORIGIN) for step in steps]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0, 1, 2, 3, 4], [1, 1, 1, 1, 1]),
        ([0, 1.6, 3.2, 4.8], [1, 1, 1, 1]),  # five frames a second at 8 Hz
        ([0, 1, 3, 4, 6, 7], [1, 1, 1, 1, 1, 1]),  # single lost samples
        ([0, 2, 4, 6, 8], [1, 1, 2, 2, 3]),  # half the sample rate
        ([0, 1, 4, 5], [1, 1, 2, 2]),  # two lost samples in a row
        ([0, 1, 0, 1], [1, 1, 2, 2]),  # media time jumps back
        ([0, 1, 1, 2], [1, 1, 2, 2]),  # media time stands still
        ([0, 800, 801], [1, 2, 2]),
    ],
)
def test_segments_follow_from_the_intervals(steps: list[float], expected: list[int]) -> None:
    """Intervals up to 1.75 follow; up to 2.75, unless the one before was bridged too."""
    assert segments(steps) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"connection": 2},
        {"timeline": 1},
        {"recoveries": 1},
        {"geometry": replace(GEOMETRY, width=1280, height=720)},
        {"geometry": replace(GEOMETRY, orientation=Orientation.MIRRORED)},
        {"geometry": replace(GEOMETRY, pixel_aspect=Fraction(4, 3))},
    ],
)
def test_a_change_of_origin_begins_a_segment(change: dict[str, Any]) -> None:
    """A change counts also if the times continue."""
    continuity = Continuity(HZ)
    assert continuity.deliver(0.0, ORIGIN) == 1
    assert continuity.deliver(1 / HZ, replace(ORIGIN, **change)) == 2
    assert continuity.deliver(2 / HZ, replace(ORIGIN, **change)) == 2


@pytest.mark.parametrize(("refused", "expected"), [([], 1), ([2], 1), ([2, 3], 2), ([2, 3, 4, 5], 2)])
def test_refused_samples_are_lost_samples(refused: list[int], expected: int) -> None:
    """One refused sample is bridged, two are not."""
    continuity = Continuity(HZ)
    for number in (0, 1, *refused):
        continuity.deliver(number / HZ, ORIGIN)
        if number in refused:
            continuity.refuse()
    assert continuity.deliver((len(refused) + 2) / HZ, ORIGIN) == expected


def test_a_refused_first_sample_does_not_hide_its_segment() -> None:
    """The sample after it has the new segment, although its time continues."""
    continuity = Continuity(HZ)
    assert continuity.deliver(0.0, ORIGIN) == 1
    assert continuity.deliver(1 / HZ, replace(ORIGIN, timeline=1)) == 2
    continuity.refuse()
    assert continuity.deliver(2 / HZ, replace(ORIGIN, timeline=1)) == 2


@dataclass(frozen=True)
class Step:
    """One decoded frame, and what happens around it."""

    interval_s: float
    width: int
    reconnect: bool
    takes: int
    refuse: bool


INTERVALS_S = st.one_of(
    st.sampled_from([0.04, 1 / 30, 0.0, -0.001, 0.2, 0.24, 1 / 3, -0.5, 100.0]),
    st.floats(-2.0, 2.0, allow_nan=False),
)
STEPS = st.builds(
    Step,
    interval_s=INTERVALS_S,
    width=st.sampled_from([640, 640, 640, 640, 1280]),
    reconnect=st.sampled_from([False] * 19 + [True]),
    takes=st.integers(0, 3),
    refuse=st.sampled_from([False] * 4 + [True]),
)


@dataclass(frozen=True)
class Used:
    """One sample that the consumer has used."""

    time_s: float
    origin: Origin
    segment: int


def run(steps: Sequence[Step]) -> list[Used]:
    """Send frames through sampler, queue and continuity; return the samples that were used."""
    time_s = 0.0
    frame_queue: FrameQueue[tuple[float, Origin]] = FrameQueue(drops_late=True, clock=lambda: time_s)
    continuity, sampler = Continuity(HZ), ThinnedSampler(HZ)
    used: list[Used] = []
    connection = 1
    for step in steps:
        time_s += step.interval_s
        if step.reconnect:
            connection += 1
            sampler = ThinnedSampler(HZ)
        if sampler.offer(time_s, behind=frame_queue.behind):
            origin = Origin(
                connection=connection,
                timeline=sampler.timeline,
                recoveries=sampler.recoveries,
                geometry=replace(GEOMETRY, width=step.width),
            )
            frame_queue.put((time_s, origin))
        for _ in range(step.takes):
            if taken := frame_queue.take(0):
                segment = continuity.deliver(*taken)
                if step.refuse:
                    continuity.refuse()
                else:
                    used.append(Used(*taken, segment))
    return used


@pytest.mark.fuzz
@given(st.lists(STEPS, max_size=80))
def test_no_window_spans_two_segments(steps: list[Step]) -> None:
    """Whatever happens, the samples of one segment have one origin and no hole, and numbers only grow."""
    used = run(steps)
    bridged = False
    for last, sample in itertools.pairwise(used):
        assert sample.segment >= last.segment
        if sample.segment != last.segment:
            bridged = False
            continue
        interval = (sample.time_s - last.time_s) * HZ
        assert sample.origin == last.origin
        assert 0 < interval <= MAX_BRIDGED_STEP + 1e-4
        assert not (bridged and interval > MAX_STEP + 1e-4)
        bridged = interval > MAX_STEP + 1e-4


@pytest.mark.fuzz
@given(st.lists(STEPS, max_size=40))
def test_segments_depend_on_nothing_but_the_sequence(steps: list[Step]) -> None:
    """The same sequence gives the same segments."""
    assert run(steps) == run(steps)
