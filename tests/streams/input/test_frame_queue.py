"""Tests of the frame queue: which samples are kept, and when a producer waits."""

from __future__ import annotations

import threading

import pytest

from streams.errors import EndOfStream, SourceUnavailable
from streams.input.frame_queue import FrameQueue


class Clock:
    """Clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def live_queue() -> tuple[FrameQueue[int], Clock]:
    clock = Clock()
    return FrameQueue(drops_late=True, clock=clock), clock


def test_all_but_the_newest_are_dropped_once_the_oldest_has_waited_too_long() -> None:
    """They are dropped at once, and counted; up to then, all wait."""
    frame_queue, clock = live_queue()
    for number in range(8):
        clock.now = number / 8
        frame_queue.put(number)
    assert (frame_queue.take(0), frame_queue.dropped) == (0, 0)
    clock.now = 1.2
    frame_queue.put(8)
    assert [frame_queue.take(0) for _ in range(2)] == [8, None]
    assert frame_queue.dropped == 7


def test_a_late_consumer_gets_the_newest_sample() -> None:
    """Samples that have become old since the last one came are dropped too."""
    frame_queue, clock = live_queue()
    frame_queue.put(0)
    frame_queue.put(1)
    clock.now = 5.0
    assert [frame_queue.take(0) for _ in range(2)] == [1, None]
    assert frame_queue.dropped == 1


def test_the_queue_is_behind_from_two_waiting_samples_until_the_consumer_waits() -> None:
    """Only while samples wait is there a reason to send the next one later."""
    frame_queue, _ = live_queue()
    seen = []
    for step in (1, 1, 0, 0, 1, 1, 0, 0, 0, 1):
        if step:
            frame_queue.put(0)
        else:
            frame_queue.take(0)
        seen.append(frame_queue.behind)
    assert seen == [False, True, True, False, True, True, True, False, False, False]


@pytest.mark.parametrize("live", [True, False])
def test_a_sample_that_waited_is_late_if_its_source_is_live(live: bool) -> None:
    """A finite source waits for its consumer; no sample of it is late."""
    clock = Clock()
    frame_queue: FrameQueue[int] = FrameQueue(drops_late=live, clock=clock)
    seen = []
    for waited_s in (0.0, 0.02, 0.1, 0.0):
        frame_queue.put(0)
        clock.now += waited_s
        frame_queue.take(0)
        seen.append(frame_queue.late)
    assert seen == [False, False, live, False]


def test_a_finite_source_waits_for_room() -> None:
    """`put` waits until there is room; none is lost, and `behind` is false."""
    frame_queue: FrameQueue[int] = FrameQueue(drops_late=False)

    def produce() -> None:
        for number in range(10):
            frame_queue.put(number)

    producer = threading.Thread(target=produce)
    producer.start()
    taken = [frame_queue.take(5.0) for _ in range(10)]
    producer.join()
    assert taken == list(range(10))
    assert (frame_queue.dropped, frame_queue.behind) == (0, False)


def test_waiting_samples_can_be_taken_after_closing() -> None:
    """Then `take` raises EndOfStream with the error that closed the queue as its cause."""
    frame_queue: FrameQueue[int] = FrameQueue(drops_late=False)
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
    full: FrameQueue[int] = FrameQueue(drops_late=False)
    for number in range(4):
        full.put(number)
    producer = threading.Thread(target=full.put, args=[4])
    producer.start()
    full.close(discard=True)
    producer.join(timeout=5.0)
    assert not producer.is_alive()
    with pytest.raises(EndOfStream):
        full.take(5.0)
