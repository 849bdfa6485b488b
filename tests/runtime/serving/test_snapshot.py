"""Snapshot store: the current state without expired verdicts."""

from __future__ import annotations

import re

import pytest

from runtime.messages import MIN_VERDICT_HZ, HeartbeatMessage, StreamMessage, StreamState
from runtime.serving.pages import WEB
from runtime.serving.snapshot import EXPIRY_S, SnapshotStore
from tests.support.wire import verdict


class Clock:
    """Clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def valid_verdicts(store: SnapshotStore) -> list[tuple[str, int, str]]:
    """Return the valid verdicts as (stream, face, state)."""
    return [(message.stream, message.face, message.state) for message in store.verdicts()]


def test_the_last_message_of_each_stream_and_face_is_kept() -> None:
    """Every stream and every face occurs once, with its last message."""
    store = SnapshotStore()
    store.apply(StreamMessage(stream="a", state="connecting").stamp(1, 0.0))
    store.apply(StreamMessage(stream="b", state="connecting").stamp(2, 0.0))
    store.apply(StreamMessage(stream="a", state="live").stamp(3, 1.0))
    store.apply(verdict(stream="a", face=1, state="warming").stamp(4, 1.1))
    store.apply(verdict(stream="a", face=2).stamp(5, 1.2))
    store.apply(verdict(stream="a", face=1, state="real", p_fake=0.1).stamp(6, 1.3))
    assert [(stream.stream, stream.state) for stream in store.streams()] == [
        ("a", "live"),
        ("b", "connecting"),
    ]
    assert valid_verdicts(store) == [("a", 1, "real"), ("a", 2, "fake")]


def test_a_stale_face_is_removed() -> None:
    """A stale face has no verdict in the snapshot."""
    store = SnapshotStore()
    store.apply(verdict(face=1).stamp(1, 0.0))
    store.apply(verdict(face=1, state="stale").stamp(2, 0.5))
    store.apply(verdict(face=9, state="stale").stamp(3, 0.5))
    assert valid_verdicts(store) == []


def test_a_stream_that_is_not_live_has_no_verdicts() -> None:
    """Any state but `live` removes the verdicts of that stream, and only those."""
    states: tuple[StreamState, ...] = ("connecting", "no_face", "too_slow", "stalled", "offline", "ended")
    for state in states:
        store = SnapshotStore()
        store.apply(verdict(stream="a").stamp(1, 0.0))
        store.apply(verdict(stream="b").stamp(2, 0.0))
        store.apply(StreamMessage(stream="a", state=state).stamp(3, 0.1))
        assert valid_verdicts(store) == [("b", 1, "fake")], state


@pytest.mark.parametrize("set_by_s", [0.0, 3600.0, -3600.0])
def test_a_verdict_without_a_newer_one_expires(set_by_s: float) -> None:
    """A thread that hangs cannot keep its last verdict valid, and setting the wall clock changes nothing."""
    clock = Clock()
    store = SnapshotStore(expiry_s=5.0, clock=clock)
    store.apply(verdict().stamp(1, 5000.0))
    clock.now = 5.0
    store.apply(HeartbeatMessage(uptime_s=5).stamp(2, 5005.0 + set_by_s))
    assert valid_verdicts(store) == [("cam", 1, "fake")]
    clock.now = 5.1
    assert valid_verdicts(store) == []


def test_heartbeats_remove_expired_verdicts() -> None:
    """The store does not grow while no snapshot is requested."""
    clock = Clock()
    store = SnapshotStore(expiry_s=5.0, clock=clock)
    for face in range(1000):
        clock.now = float(face)
        store.apply(verdict(face=face).stamp(face, 0.0))
        store.apply(HeartbeatMessage(uptime_s=face).stamp(face, 0.0))
    assert len(store._verdicts) <= 7


def test_a_removed_stream_is_forgotten() -> None:
    """A client that connects later learns nothing of it."""
    store = SnapshotStore()
    for stream in ("a", "b"):
        store.apply(StreamMessage(stream=stream, state="live").stamp(1, 0.0))
    store.apply(StreamMessage(stream="a", state="removed", reason="renamed").stamp(2, 0.1))
    store.apply(StreamMessage(stream="never seen", state="removed").stamp(3, 0.1))
    assert [message.stream for message in store.streams()] == ["b"]


def test_verdicts_at_the_lowest_rate_do_not_expire() -> None:
    """One that comes a late sample and half a second of transport after its time still finds the last one."""
    interval_s = 1 / MIN_VERDICT_HZ + 0.3 + 0.5
    expiry = re.search(r"EXPIRY_MS = (\d+);", (WEB / "shared" / "feed.js").read_text())
    assert expiry is not None
    assert interval_s < min(EXPIRY_S, int(expiry[1]) / 1000)
