"""Tests of the frame queue: which samples are kept, and when a producer waits."""

from __future__ import annotations

import threading

import pytest

from streams.errors import EndOfStream, SourceUnavailable
from streams.input.frame_queue import FrameQueue


def test_the_newest_two_samples_are_kept() -> None:
    """Replaced samples are counted."""
    frame_queue: FrameQueue[int] = FrameQueue(newest_wins=True)
    for number in range(5):
        frame_queue.put(number)
    assert [frame_queue.take(0) for _ in range(3)] == [3, 4, None]
    assert frame_queue.dropped == 3


def test_a_consumer_one_sample_late_loses_none() -> None:
    """Two samples that arrive during one analysis are both kept."""
    frame_queue: FrameQueue[int] = FrameQueue(newest_wins=True)
    frame_queue.put(0)
    frame_queue.take(0)
    frame_queue.put(1)
    frame_queue.put(2)
    assert [frame_queue.take(0) for _ in range(2)] == [1, 2]
    assert frame_queue.dropped == 0


def test_a_finite_source_waits_for_room() -> None:
    """With room for two, `put` of the third sample waits until one is taken; none is lost."""
    frame_queue: FrameQueue[int] = FrameQueue(newest_wins=False, room=2)

    def produce() -> None:
        for number in range(10):
            frame_queue.put(number)

    producer = threading.Thread(target=produce)
    producer.start()
    taken = [frame_queue.take(5.0) for _ in range(10)]
    producer.join()
    assert taken == list(range(10))
    assert frame_queue.dropped == 0


def test_waiting_samples_can_be_taken_after_closing() -> None:
    """Then `take` raises EndOfStream with the error that closed the queue as its cause."""
    frame_queue: FrameQueue[int] = FrameQueue(newest_wins=False)
    frame_queue.put(0)
    cause = SourceUnavailable("cam", "gone")
    frame_queue.close(cause)
    frame_queue.put(1)
    assert frame_queue.take(0) is not None
    with pytest.raises(EndOfStream) as caught:
        frame_queue.take(0)
    assert caught.value.__cause__ is cause


def test_closing_wakes_waiting_threads() -> None:
    """Closing ends the wait of a producer for room and of a consumer for a sample."""
    full: FrameQueue[int] = FrameQueue(newest_wins=False, room=1)
    full.put(0)
    producer = threading.Thread(target=full.put, args=[1])
    producer.start()
    full.close(discard=True)
    producer.join(timeout=5.0)
    assert not producer.is_alive()
    with pytest.raises(EndOfStream):
        full.take(5.0)
