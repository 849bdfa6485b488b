"""What a client that joins is told is what holds, and nothing that has expired."""

from __future__ import annotations

from wire import verdict

from runtime.serving.protocol import HeartbeatMessage, StreamMessage, StreamState
from runtime.serving.snapshot import Board


def said(board: Board, now: float) -> list[tuple[str, int, str]]:
    """List the verdicts on the board as (stream, face, state)."""
    return [(message["stream"], message["face"], message["state"]) for message in board.verdicts(now)]


def test_the_latest_of_each_face_and_stream_is_kept() -> None:
    """Every stream and every face is there once, with its last message."""
    board = Board()
    board.apply(StreamMessage(stream="a", state="connecting").stamp(1, 0.0))
    board.apply(StreamMessage(stream="b", state="connecting").stamp(2, 0.0))
    board.apply(StreamMessage(stream="a", state="live").stamp(3, 1.0))
    board.apply(verdict(stream="a", face=1, state="warming").stamp(4, 1.1))
    board.apply(verdict(stream="a", face=2).stamp(5, 1.2))
    board.apply(verdict(stream="a", face=1, state="real", p_fake=0.1).stamp(6, 1.3))
    assert [(stream["stream"], stream["state"]) for stream in board.streams()] == [
        ("a", "live"),
        ("b", "connecting"),
    ]
    assert said(board, 1.4) == [("a", 1, "real"), ("a", 2, "fake")]


def test_a_stale_face_is_forgotten() -> None:
    """A face that is stale has no verdict, so a client that joins does not hear of it."""
    board = Board()
    board.apply(verdict(face=1).stamp(1, 0.0))
    board.apply(verdict(face=1, state="stale").stamp(2, 0.5))
    board.apply(verdict(face=9, state="stale").stamp(3, 0.5))
    assert said(board, 0.6) == []


def test_a_stream_that_is_not_live_has_no_verdicts() -> None:
    """Whatever ends a stream ends its verdicts, and only its own."""
    states: tuple[StreamState, ...] = ("connecting", "no_face", "too_slow", "stalled", "offline", "ended")
    for state in states:
        board = Board()
        board.apply(verdict(stream="a").stamp(1, 0.0))
        board.apply(verdict(stream="b").stamp(2, 0.0))
        board.apply(StreamMessage(stream="a", state=state).stamp(3, 0.1))
        assert said(board, 0.2) == [("b", 1, "fake")], state


def test_a_verdict_that_nobody_withdrew_expires() -> None:
    """A thread that hangs cannot leave its last verdict standing for ever."""
    board = Board(expiry_s=5.0)
    board.apply(verdict().stamp(1, 100.0))
    assert said(board, 105.0) == [("cam", 1, "fake")]
    assert said(board, 105.1) == []


def test_a_clock_that_is_set_back_does_not_keep_a_verdict() -> None:
    """A verdict from the future is as little worth as one from the past."""
    board = Board(expiry_s=5.0)
    board.apply(verdict().stamp(1, 1000.0))
    assert said(board, 10.0) == []


def test_heartbeats_clear_the_board() -> None:
    """Faces that nobody asks for do not pile up over the days."""
    board = Board(expiry_s=5.0)
    for face in range(1000):
        board.apply(verdict(face=face).stamp(face, float(face)))
        board.apply(HeartbeatMessage(uptime_s=face).stamp(face, float(face)))
    assert len(board._verdicts) <= 7
