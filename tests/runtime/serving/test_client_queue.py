"""A full backlog lets the old give way to the new, and a stream's state outlives its verdicts."""

from __future__ import annotations

import pytest
from wire import verdict

from runtime.serving.client_queue import Backlog, Parcel
from runtime.serving.protocol import BroadcastMessage, HeartbeatMessage, StreamMessage


def parcel(message: BroadcastMessage, seq: int) -> Parcel:
    """Wrap a message as the hub does."""
    return Parcel(message.stamp(seq, float(seq)), b"")


def drain(backlog: Backlog) -> list[int]:
    """Take everything out, as numbers."""
    seqs = []
    while (taken := backlog.pop()) is not None:
        seqs.append(taken.seq)
    return seqs


def test_what_fits_comes_out_in_order() -> None:
    """A client that keeps up gets everything, in order."""
    backlog = Backlog(3)
    for seq in (1, 2, 3):
        backlog.push(parcel(verdict(), seq))
    assert len(backlog) == 3
    assert drain(backlog) == [1, 2, 3]
    assert backlog.lost == 0
    assert backlog.pop() is None


def test_newer_verdicts_push_out_older_ones() -> None:
    """A client that sleeps wakes to the newest verdicts."""
    backlog = Backlog(3)
    for seq in range(1, 11):
        backlog.push(parcel(verdict(), seq))
    assert drain(backlog) == [8, 9, 10]
    assert backlog.lost == 7


def test_the_latest_of_every_stream_and_face_survives() -> None:
    """A flood about one face does not push out what is known of another, nor any stream's state."""
    backlog = Backlog(4)
    backlog.push(parcel(StreamMessage(stream="a", state="live"), 1))
    backlog.push(parcel(StreamMessage(stream="b", state="offline"), 2))
    backlog.push(parcel(verdict(face=1), 3))
    for seq in range(4, 100):
        backlog.push(parcel(verdict(face=2), seq))
    assert drain(backlog) == [1, 2, 3, 99]


def test_a_newer_state_replaces_the_older() -> None:
    """Of a stream that comes and goes only the last state must arrive."""
    backlog = Backlog(2)
    for seq, state in enumerate(("connecting", "live", "offline", "live"), 1):
        backlog.push(parcel(StreamMessage(stream="a", state=state), seq))  # type: ignore[arg-type]
    assert drain(backlog) == [3, 4]


def test_verdicts_give_way_to_states() -> None:
    """Where nothing is superseded, the oldest verdict goes before any stream's state."""
    backlog = Backlog(3)
    backlog.push(parcel(StreamMessage(stream="a", state="live"), 1))
    backlog.push(parcel(verdict(face=1), 2))
    backlog.push(parcel(verdict(face=2), 3))
    backlog.push(parcel(StreamMessage(stream="b", state="live"), 4))
    assert drain(backlog) == [1, 3, 4]


def test_it_is_bounded_even_by_states() -> None:
    """More streams than the backlog holds cannot make it grow; the newest are kept."""
    backlog = Backlog(2)
    for seq in range(1, 6):
        backlog.push(parcel(StreamMessage(stream=str(seq), state="live"), seq))
    assert drain(backlog) == [4, 5]


def test_a_backlog_of_one_holds_the_newest() -> None:
    """The smallest backlog is still newest-wins."""
    backlog = Backlog(1)
    backlog.push(parcel(StreamMessage(stream="a", state="live"), 1))
    backlog.push(parcel(HeartbeatMessage(uptime_s=1), 2))
    assert drain(backlog) == [2]
    with pytest.raises(ValueError, match="at least 1"):
        Backlog(0)
