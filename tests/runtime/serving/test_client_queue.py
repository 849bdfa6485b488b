"""A full backlog lets the old give way to the new, and a stream's state outlives its verdicts."""

from __future__ import annotations

import pytest

from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage
from runtime.serving.client_queue import EncodedMessage, OutboundQueue
from tests.support.wire import verdict


def encoded(message: BroadcastMessage, seq: int) -> EncodedMessage:
    """Wrap a message as the hub does."""
    return EncodedMessage(message.stamp(seq, float(seq)), b"")


def drain(queue: OutboundQueue) -> list[int]:
    """Take everything out, as numbers."""
    seqs = []
    while (taken := queue.pop()) is not None:
        seqs.append(taken.seq)
    return seqs


def test_what_fits_comes_out_in_order() -> None:
    """A client that keeps up gets everything, in order."""
    queue = OutboundQueue(3)
    for seq in (1, 2, 3):
        queue.push(encoded(verdict(), seq))
    assert len(queue) == 3
    assert drain(queue) == [1, 2, 3]
    assert queue.lost == 0
    assert queue.pop() is None


def test_newer_verdicts_push_out_older_ones() -> None:
    """A client that sleeps wakes to the newest verdicts."""
    queue = OutboundQueue(3)
    for seq in range(1, 11):
        queue.push(encoded(verdict(), seq))
    assert drain(queue) == [8, 9, 10]
    assert queue.lost == 7


def test_the_latest_of_every_stream_and_face_survives() -> None:
    """A flood about one face does not push out what is known of another, nor any stream's state."""
    queue = OutboundQueue(4)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(StreamMessage(stream="b", state="offline"), 2))
    queue.push(encoded(verdict(face=1), 3))
    for seq in range(4, 100):
        queue.push(encoded(verdict(face=2), seq))
    assert drain(queue) == [1, 2, 3, 99]


def test_a_newer_state_replaces_the_older() -> None:
    """Of a stream that comes and goes only the last state must arrive."""
    queue = OutboundQueue(2)
    for seq, state in enumerate(("connecting", "live", "offline", "live"), 1):
        queue.push(encoded(StreamMessage(stream="a", state=state), seq))  # type: ignore[arg-type]
    assert drain(queue) == [3, 4]


def test_verdicts_give_way_to_states() -> None:
    """Where nothing is superseded, the oldest verdict goes before any stream's state."""
    queue = OutboundQueue(3)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(verdict(face=1), 2))
    queue.push(encoded(verdict(face=2), 3))
    queue.push(encoded(StreamMessage(stream="b", state="live"), 4))
    assert drain(queue) == [1, 3, 4]


def test_it_is_bounded_even_by_states() -> None:
    """More streams than the backlog holds cannot make it grow; the newest are kept."""
    queue = OutboundQueue(2)
    for seq in range(1, 6):
        queue.push(encoded(StreamMessage(stream=str(seq), state="live"), seq))
    assert drain(queue) == [4, 5]


def test_a_backlog_of_one_holds_the_newest() -> None:
    """The smallest backlog is still newest-wins."""
    queue = OutboundQueue(1)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(HeartbeatMessage(uptime_s=1), 2))
    assert drain(queue) == [2]
    with pytest.raises(ValueError, match="at least 1"):
        OutboundQueue(0)
