"""Tests of the schedule of the backbone: which samples of a face get a feature of their own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from runtime.pipeline.analysed_faces import FeatureSchedule

HZ = 8


def chosen(schedule: FeatureSchedule, index: int, *faces: int, segment: int = 1) -> list[int]:
    """Return the chosen faces of the sample with an index."""
    flags = schedule.choose(faces, time_s=index / HZ, segment=segment)
    return [face for face, flag in zip(faces, flags, strict=True) if flag]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_nth_sample_of_a_face_is_chosen(every: int) -> None:
    """After the first sample the distance is at most n, and then always n."""
    schedule = FeatureSchedule(every, sample_hz=HZ)
    due = [index for index in range(24) if chosen(schedule, index, 1)]
    assert due[0] == 0
    assert due[1] <= every
    assert {later - earlier for earlier, later in pairwise(due[1:])} == {every}


def test_the_load_of_several_faces_is_even() -> None:
    """Of four faces, two are chosen in each sample after the first."""
    schedule = FeatureSchedule(2, sample_hz=HZ)
    assert chosen(schedule, 0, 1, 2, 3, 4) == [1, 2, 3, 4]
    assert [len(chosen(schedule, index, 1, 2, 3, 4)) for index in range(1, 9)] == [2] * 8


def test_streams_take_turns() -> None:
    """With another phase the other samples of a face are chosen, and the first one too."""
    streams = [FeatureSchedule(2, sample_hz=HZ, phase=phase) for phase in range(2)]
    due = [[index for index in range(8) if chosen(stream, index, 1)] for stream in streams]
    assert due == [[0, 2, 4, 6], [0, 1, 3, 5, 7]]


def test_a_sample_that_may_begin_a_window_is_chosen() -> None:
    """After a miss, in a new segment, and after a gap that is not bridged; not after one that is."""
    schedule = FeatureSchedule(100, sample_hz=HZ)
    assert chosen(schedule, 0, 1) == [1]
    assert chosen(schedule, 1, 1) == []
    assert chosen(schedule, 2) == []
    assert chosen(schedule, 3, 1) == [1], "missed in the sample before"
    assert chosen(schedule, 4, 1, segment=2) == [1]
    assert chosen(schedule, 6, 1, segment=2) == [], "one sample is missing"
    assert chosen(schedule, 9, 1, segment=2) == [1], "two samples are missing"
