"""Tests of the frame queue: which samples are kept, and which frames are marked as gaps."""

from __future__ import annotations

import threading
from fractions import Fraction

import av
import pytest

from streams.errors import EndOfStream, SourceUnavailable
from streams.input.frame import Frame
from streams.input.frame_queue import FrameQueue

IMAGE = av.VideoFrame(16, 16, "yuv420p")


def sample(number: int, *, gap: bool = False) -> Frame:
    """Return the sample of a number at 8 Hz."""
    return Frame(
        image=IMAGE,
        pts=number,
        time_base=Fraction(1, 8),
        captured=None,
        decode_ms=0.0,
        missed=0,
        gap=gap,
    )


def test_the_newest_two_samples_are_kept() -> None:
    """Replaced samples are counted and recorded in `missed` of the next sample taken."""
    frame_queue = FrameQueue(newest_wins=True, step_s=1 / 8)
    for number in range(5):
        frame_queue.put(sample(number, gap=number == 0))
    taken = [frame_queue.take(0) for _ in range(3)]
    assert [frame and (frame.pts, frame.missed, frame.gap) for frame in taken] == [
        (3, 3, True),
        (4, 0, False),
        None,
    ]
    assert frame_queue.dropped == 3


def test_a_consumer_one_sample_late_loses_none() -> None:
    """Two samples that arrive during one analysis are both kept."""
    frame_queue = FrameQueue(newest_wins=True, step_s=1 / 8)
    frame_queue.put(sample(0, gap=True))
    frame_queue.take(0)
    frame_queue.put(sample(1))
    frame_queue.put(sample(2))
    taken = [frame_queue.take(0) for _ in range(2)]
    assert [frame and (frame.pts, frame.missed, frame.gap) for frame in taken] == [
        (1, 0, False),
        (2, 0, False),
    ]
    assert frame_queue.dropped == 0


def take_all(*batches: list[int]) -> list[tuple[int, int, bool] | None]:
    """Put the samples of each batch and take the last one; return its number, `missed` and `gap`."""
    frame_queue = FrameQueue(newest_wins=True, step_s=1 / 8, room=1)
    taken: list[tuple[int, int, bool] | None] = []
    for batch in batches:
        for number in batch:
            frame_queue.put(sample(number, gap=number == 0))
        frame = frame_queue.take(0)
        taken.append((frame.pts, frame.missed, frame.gap) if frame else None)
    return taken


def test_a_single_lost_sample_is_bridged() -> None:
    """One lost sample is not a gap if the sample before it was not lost either."""
    assert take_all([0], [1], [2, 3], [4], [5, 6], [7]) == [
        (0, 0, True),
        (1, 0, False),
        (3, 1, False),
        (4, 0, False),
        (6, 1, False),
        (7, 0, False),
    ]


def test_two_lost_samples_are_a_gap() -> None:
    """Two samples lost in a row, or one lost next to a jump of the source, are a gap."""
    assert take_all([0], [1, 2, 3], [4]) == [(0, 0, True), (3, 2, True), (4, 0, False)]
    assert take_all([0], [1, 3], [4]) == [(0, 0, True), (3, 1, True), (4, 0, False)]


def test_losing_every_second_sample_gives_gaps() -> None:
    """A consumer at half the sample rate never gets three samples without a gap."""
    taken = take_all([0], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10])
    assert [sample and sample[2] for sample in taken] == [True, False, True, False, True, False]


def test_a_sample_missing_in_the_source_is_a_gap() -> None:
    """Only samples lost in the queue are bridged."""
    frame_queue = FrameQueue(newest_wins=False, step_s=1 / 8)
    gaps = []
    for number in (0, 1, 3):
        frame_queue.put(sample(number))
        frame = frame_queue.take(0)
        gaps.append(frame and frame.gap)
    assert gaps == [False, False, True]


def test_a_finite_source_waits_for_room() -> None:
    """With room for two, `put` of the third sample waits until one is taken; none is lost."""
    frame_queue = FrameQueue(newest_wins=False, step_s=1 / 8, room=2)

    def produce() -> None:
        for number in range(10):
            frame_queue.put(sample(number))

    producer = threading.Thread(target=produce)
    producer.start()
    taken = [frame.pts for _ in range(10) if (frame := frame_queue.take(5.0))]
    producer.join()
    assert taken == list(range(10))
    assert frame_queue.dropped == 0


def test_waiting_samples_can_be_taken_after_closing() -> None:
    """Then `take` raises EndOfStream with the error that closed the queue as its cause."""
    frame_queue = FrameQueue(newest_wins=False, step_s=1 / 8)
    frame_queue.put(sample(0))
    cause = SourceUnavailable("cam", "gone")
    frame_queue.close(cause)
    frame_queue.put(sample(1))
    assert frame_queue.take(0) is not None
    with pytest.raises(EndOfStream) as caught:
        frame_queue.take(0)
    assert caught.value.__cause__ is cause


def test_closing_wakes_waiting_threads() -> None:
    """Closing ends the wait of a producer for room and of a consumer for a sample."""
    full = FrameQueue(newest_wins=False, step_s=1 / 8, room=1)
    full.put(sample(0))
    producer = threading.Thread(target=full.put, args=[sample(1)])
    producer.start()
    full.close(discard=True)
    producer.join(timeout=5.0)
    assert not producer.is_alive()
    with pytest.raises(EndOfStream):
        full.take(5.0)
