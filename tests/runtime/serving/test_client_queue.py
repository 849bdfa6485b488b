"""Outbound queue: which messages are dropped when it is full."""

from __future__ import annotations

import pytest

from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage
from runtime.serving.client_queue import HEARTBEAT, EncodedMessage, OutboundQueue
from tests.support.wire import verdict


def encoded(message: BroadcastMessage, seq: int) -> EncodedMessage:
    """Wrap a message as the broadcaster does."""
    return EncodedMessage(message.stamp(seq, float(seq)), b"")


def drain(queue: OutboundQueue[EncodedMessage]) -> list[int]:
    """Remove all messages and return their numbers."""
    seqs = []
    while (taken := queue.pop()) is not None:
        seqs.append(taken.seq)
    return seqs


def test_messages_come_out_in_order() -> None:
    """Nothing is dropped while the queue is not full."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(3)
    for seq in (1, 2, 3):
        queue.push(encoded(verdict(), seq))
    assert len(queue) == 3
    assert drain(queue) == [1, 2, 3]
    assert queue.lost == 0
    assert queue.pop() is None


def test_newer_verdicts_replace_older_ones() -> None:
    """After a pause the newest verdicts are left."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(3)
    for seq in range(1, 11):
        queue.push(encoded(verdict(), seq))
    assert drain(queue) == [8, 9, 10]
    assert queue.lost == 7


def test_the_latest_message_of_every_stream_and_face_is_kept() -> None:
    """Many verdicts on one face drop neither those on another nor a stream's state."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(4)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(StreamMessage(stream="b", state="offline"), 2))
    queue.push(encoded(verdict(face=1), 3))
    for seq in range(4, 100):
        queue.push(encoded(verdict(face=2), seq))
    assert drain(queue) == [1, 2, 3, 99]


def test_a_newer_state_replaces_the_older_one() -> None:
    """Only the last states of a stream that changes often are kept."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(2)
    for seq, state in enumerate(("connecting", "live", "offline", "live"), 1):
        queue.push(encoded(StreamMessage(stream="a", state=state), seq))  # type: ignore[arg-type]
    assert drain(queue) == [3, 4]


def test_verdicts_are_dropped_before_states() -> None:
    """Without a replaced message, the oldest verdict is dropped before any stream's state."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(3)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(verdict(face=1), 2))
    queue.push(encoded(verdict(face=2), 3))
    queue.push(encoded(StreamMessage(stream="b", state="live"), 4))
    assert drain(queue) == [1, 3, 4]


def test_states_are_bounded_too() -> None:
    """With more streams than capacity, the newest states are kept."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(2)
    for seq in range(1, 6):
        queue.push(encoded(StreamMessage(stream=str(seq), state="live"), seq))
    assert drain(queue) == [4, 5]


def test_a_capacity_of_one_keeps_the_newest() -> None:
    """The smallest queue keeps the newest message; a capacity of 0 is refused."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(1)
    queue.push(encoded(StreamMessage(stream="a", state="live"), 1))
    queue.push(encoded(HeartbeatMessage(uptime_s=1), 2))
    assert drain(queue) == [2]
    with pytest.raises(ValueError, match="at least 1"):
        OutboundQueue(0)


@pytest.mark.parametrize("interval_s", [0.01, 0.3, 1.0, 2.0, 7.3])
@pytest.mark.parametrize("faces", [1, 3, 14, 40])
def test_a_slow_client_receives_new_messages_about_every_face(faces: int, interval_s: float) -> None:
    """A client that takes one message per interval gets recent ones, about each face in turn."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(256, max_wait_s=0.5)
    now, next_taken, seq = 0.0, 1.0, 0
    every_second: list[BroadcastMessage] = [verdict(face=face) for face in range(faces)]
    every_second.append(HeartbeatMessage(uptime_s=1.0))
    taken_at: list[tuple[float, EncodedMessage]] = []
    while now < 3.0 + 3 * interval_s * (faces + 1):
        now += 0.125
        for message in every_second if now % 1.0 == 0 else every_second[:-1]:
            seq += 1
            queue.push(EncodedMessage(message.stamp(seq, now), b""), now)
        while next_taken <= now and (taken := queue.pop(now)) is not None:
            next_taken += interval_s
            taken_at.append((now, taken))
    verdicts = [(at, taken) for at, taken in taken_at if taken.subject != HEARTBEAT]
    assert max(at - taken.message.time for at, taken in verdicts) <= 0.625
    seqs = [taken.seq for _, taken in taken_at]
    assert seqs == sorted(seqs)
    assert seq == len(seqs) + len(queue) + queue.lost
    assert {taken.subject for _, taken in verdicts} == {("verdict", "cam", face) for face in range(faces)}


def test_a_slow_client_gets_the_last_state_of_everything() -> None:
    """After a pause only repeats and verdicts of a stream that went offline are missing."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(64, max_wait_s=0.5)
    messages: list[BroadcastMessage] = [
        StreamMessage(stream="cam", state="live"),
        verdict(face=1),
        verdict(face=2),
        verdict(stream="door", face=1),
        StreamMessage(stream="cam", state="offline"),
        verdict(stream="door", face=1, state="stale", latency_ms=None),
    ]
    for seq, message in enumerate(messages, 1):
        queue.push(encoded(message, seq), now=0.0)
    taken = [queue.pop(now=60.0) for _ in range(2)]
    assert [None if one is None else one.seq for one in taken] == [5, 6]
    assert (len(queue), queue.lost) == (0, 4)


def test_clearing_counts_what_was_dropped() -> None:
    """Messages that a new connection makes obsolete are lost."""
    queue: OutboundQueue[EncodedMessage] = OutboundQueue(3)
    queue.push(encoded(verdict(), 1))
    queue.clear()
    assert (len(queue), queue.lost, queue.pop()) == (0, 1, None)
