"""Tests of the hand-over between the reader's thread and the analysis."""

from __future__ import annotations

import threading
from fractions import Fraction

import av
import pytest

from streams.errors import EndOfStream, SourceUnavailable
from streams.input.frame import Frame
from streams.input.frame_queue import FrameQueue

PICTURE = av.VideoFrame(16, 16, "yuv420p")


def sample(number: int, *, gap: bool = False) -> Frame:
    """Make the sample of that number at 8 Hz."""
    return Frame(
        image=PICTURE,
        pts=number,
        time_base=Fraction(1, 8),
        captured=None,
        decode_ms=0.0,
        missed=0,
        gap=gap,
    )


def test_the_newest_samples_win() -> None:
    """What nobody took gives way, is counted, and told to whoever takes the next; two are left."""
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


def test_a_sample_that_comes_during_a_long_look_is_not_lost() -> None:
    """One sample late, the consumer gets both that came meanwhile."""
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
    """Put the samples of each batch, then take the last, and tell its number, its losses, whether a gap."""
    frame_queue = FrameQueue(newest_wins=True, step_s=1 / 8, room=1)
    taken = []
    for batch in batches:
        for number in batch:
            frame_queue.put(sample(number, gap=number == 0))
        frame = frame_queue.take(0)
        taken.append(frame and (frame.pts, frame.missed, frame.gap))
    return taken


def test_a_single_lost_sample_is_bridged() -> None:
    """Two intervals where one was expected are no gap if regular ones lie between such holes."""
    assert take_all([0], [1], [2, 3], [4], [5, 6], [7]) == [
        (0, 0, True),
        (1, 0, False),
        (3, 1, False),
        (4, 0, False),
        (6, 1, False),
        (7, 0, False),
    ]


def test_two_lost_samples_are_a_gap() -> None:
    """Three intervals are more than is bridged, and so is the source's own jump behind a lost sample."""
    assert take_all([0], [1, 2, 3], [4]) == [(0, 0, True), (3, 2, True), (4, 0, False)]
    assert take_all([0], [1, 3], [4]) == [(0, 0, True), (3, 1, True), (4, 0, False)]


def test_half_the_rate_is_no_rate() -> None:
    """Where every second sample is lost, at most two of those taken follow each other: too few to judge."""
    taken = take_all([0], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10])
    assert [sample and sample[2] for sample in taken] == [True, False, True, False, True, False]


def test_a_source_that_leaves_out_a_frame_has_a_gap() -> None:
    """Only what was lost between the threads is bridged: a file's consumer loses nothing."""
    frame_queue = FrameQueue(newest_wins=False, step_s=1 / 8)
    gaps = []
    for number in (0, 1, 3):
        frame_queue.put(sample(number))
        frame = frame_queue.take(0)
        gaps.append(frame and frame.gap)
    assert gaps == [False, False, True]


def test_a_finite_source_waits_for_room() -> None:
    """With room for two, the third sample waits until one is taken; none is lost."""
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


def test_closing_lets_the_rest_be_taken() -> None:
    """What was put before the end is still given out; then the end is told, with its cause."""
    frame_queue = FrameQueue(newest_wins=False, step_s=1 / 8)
    frame_queue.put(sample(0))
    cause = SourceUnavailable("cam", "gone")
    frame_queue.close(cause)
    frame_queue.put(sample(1))
    assert frame_queue.take(0) is not None
    with pytest.raises(EndOfStream) as caught:
        frame_queue.take(0)
    assert caught.value.__cause__ is cause


def test_closing_wakes_whoever_waits() -> None:
    """A producer without room and a consumer without samples both end when the mailbox is closed."""
    full = FrameQueue(newest_wins=False, step_s=1 / 8, room=1)
    full.put(sample(0))
    producer = threading.Thread(target=full.put, args=[sample(1)])
    producer.start()
    full.close(discard=True)
    producer.join(timeout=5.0)
    assert not producer.is_alive()
    with pytest.raises(EndOfStream):
        full.take(5.0)
