"""What a client that joins is told is what holds, and nothing that has expired."""

from __future__ import annotations

from runtime.messages import HeartbeatMessage, StreamMessage, StreamState
from runtime.serving.snapshot import SnapshotStore
from tests.support.wire import verdict


def said(snapshot_store: SnapshotStore, now: float) -> list[tuple[str, int, str]]:
    """List the verdicts on the board as (stream, face, state)."""
    return [(message.stream, message.face, message.state) for message in snapshot_store.verdicts(now)]


def test_the_latest_of_each_face_and_stream_is_kept() -> None:
    """Every stream and every face is there once, with its last message."""
    snapshot_store = SnapshotStore()
    snapshot_store.apply(StreamMessage(stream="a", state="connecting").stamp(1, 0.0))
    snapshot_store.apply(StreamMessage(stream="b", state="connecting").stamp(2, 0.0))
    snapshot_store.apply(StreamMessage(stream="a", state="live").stamp(3, 1.0))
    snapshot_store.apply(verdict(stream="a", face=1, state="warming").stamp(4, 1.1))
    snapshot_store.apply(verdict(stream="a", face=2).stamp(5, 1.2))
    snapshot_store.apply(verdict(stream="a", face=1, state="real", p_fake=0.1).stamp(6, 1.3))
    assert [(stream.stream, stream.state) for stream in snapshot_store.streams()] == [
        ("a", "live"),
        ("b", "connecting"),
    ]
    assert said(snapshot_store, 1.4) == [("a", 1, "real"), ("a", 2, "fake")]


def test_a_stale_face_is_forgotten() -> None:
    """A face that is stale has no verdict, so a client that joins does not hear of it."""
    snapshot_store = SnapshotStore()
    snapshot_store.apply(verdict(face=1).stamp(1, 0.0))
    snapshot_store.apply(verdict(face=1, state="stale").stamp(2, 0.5))
    snapshot_store.apply(verdict(face=9, state="stale").stamp(3, 0.5))
    assert said(snapshot_store, 0.6) == []


def test_a_stream_that_is_not_live_has_no_verdicts() -> None:
    """Whatever ends a stream ends its verdicts, and only its own."""
    states: tuple[StreamState, ...] = ("connecting", "no_face", "too_slow", "stalled", "offline", "ended")
    for state in states:
        snapshot_store = SnapshotStore()
        snapshot_store.apply(verdict(stream="a").stamp(1, 0.0))
        snapshot_store.apply(verdict(stream="b").stamp(2, 0.0))
        snapshot_store.apply(StreamMessage(stream="a", state=state).stamp(3, 0.1))
        assert said(snapshot_store, 0.2) == [("b", 1, "fake")], state


def test_a_verdict_that_nobody_withdrew_expires() -> None:
    """A thread that hangs cannot leave its last verdict standing for ever."""
    snapshot_store = SnapshotStore(expiry_s=5.0)
    snapshot_store.apply(verdict().stamp(1, 100.0))
    assert said(snapshot_store, 105.0) == [("cam", 1, "fake")]
    assert said(snapshot_store, 105.1) == []


def test_a_clock_that_is_set_back_does_not_keep_a_verdict() -> None:
    """A verdict from the future is as little worth as one from the past."""
    snapshot_store = SnapshotStore(expiry_s=5.0)
    snapshot_store.apply(verdict().stamp(1, 1000.0))
    assert said(snapshot_store, 10.0) == []


def test_heartbeats_clear_the_board() -> None:
    """Faces that nobody asks for do not pile up over the days."""
    snapshot_store = SnapshotStore(expiry_s=5.0)
    for face in range(1000):
        snapshot_store.apply(verdict(face=face).stamp(face, float(face)))
        snapshot_store.apply(HeartbeatMessage(uptime_s=face).stamp(face, float(face)))
    assert len(snapshot_store._verdicts) <= 7
