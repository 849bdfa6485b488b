"""Outbound queue: which messages are dropped when it is full."""

from __future__ import annotations

import pytest

from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage
from runtime.serving.client_queue import EncodedMessage, OutboundQueue
from tests.support.wire import verdict


def encoded(message: BroadcastMessage, seq: int) -> EncodedMessage:
    """Wrap a message as the broadcaster does."""
    return EncodedMessage(message.stamp(seq, float(seq)), b"")


def drain(queue: OutboundQueue) -> list[int]:
    """Remove all messages and return their numbers."""
    seqs = []
    while (taken := queue.pop()) is not None:
        seqs.append(taken.seq)
    return seqs


def test_messages_come_out_in_order() -> None:
    """Nothing is dropped while the queue is not full."""
    queue = OutboundQueue(3)
    for seq in (1, 2, 3):
        queue.push(encoded(verdict(), seq))
    assert len(queue) == 3
    assert drain(queue) == [1, 2, 3]
    assert queue.lost == 0
    assert queue.pop() is None


def test_newer_verdicts_replace_older_ones() -> None:
    """After a pause the newest verdicts are left."""
    queue = OutboundQueue(3)
    for seq in range(1, 11):
        queue.push(encoded(verdict(), seq))
    assert drain(queue) == [8, 9, 10]
    assert queue.lost == 7


def test_the_latest_message_of_every_stream_and_face_is_kept() -> None:
    """Many verdicts on one face drop neither those on another nor a stream's state."""
    queue = OutboundQueue(4)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(StreamMessage(stream="b", state="offline"), 2))
    queue.push(encoded(verdict(face=1), 3))
    for seq in range(4, 100):
        queue.push(encoded(verdict(face=2), seq))
    assert drain(queue) == [1, 2, 3, 99]


def test_a_newer_state_replaces_the_older_one() -> None:
    """Only the last states of a stream that changes often are kept."""
    queue = OutboundQueue(2)
    for seq, state in enumerate(("connecting", "live", "offline", "live"), 1):
        queue.push(encoded(StreamMessage(stream="a", state=state), seq))  # type: ignore[arg-type]
    assert drain(queue) == [3, 4]


def test_verdicts_are_dropped_before_states() -> None:
    """Without a replaced message, the oldest verdict is dropped before any stream's state."""
    queue = OutboundQueue(3)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(verdict(face=1), 2))
    queue.push(encoded(verdict(face=2), 3))
    queue.push(encoded(StreamMessage(stream="b", state="live"), 4))
    assert drain(queue) == [1, 3, 4]


def test_states_are_bounded_too() -> None:
    """With more streams than capacity, the newest states are kept."""
    queue = OutboundQueue(2)
    for seq in range(1, 6):
        queue.push(encoded(StreamMessage(stream=str(seq), state="live"), seq))
    assert drain(queue) == [4, 5]


def test_a_capacity_of_one_keeps_the_newest() -> None:
    """The smallest queue keeps the newest message; a capacity of 0 is refused."""
    queue = OutboundQueue(1)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(HeartbeatMessage(uptime_s=1), 2))
    assert drain(queue) == [2]
    with pytest.raises(ValueError, match="at least 1"):
        OutboundQueue(0)
