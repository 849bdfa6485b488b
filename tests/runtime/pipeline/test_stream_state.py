"""A stream's state and the end of its verdicts, decided from events and times alone."""

from __future__ import annotations

import pytest

from runtime.messages import BroadcastMessage, Latency, State, StreamMessage, VerdictMessage
from runtime.pipeline.stream_state import StreamStateMachine

LATENCY = Latency(decode=1.0, detect=2.0, backbone=3.0, head=4.0, total=20.0)


@pytest.fixture
def status() -> StreamStateMachine:
    return StreamStateMachine("cam", stall_timeout_s=0.5)


def verdict(face: int = 0, state: State = "real", p_fake: float | None = 0.1) -> VerdictMessage:
    return VerdictMessage(
        stream="cam",
        face=face,
        state=state,
        p_fake=p_fake,
        box=(0.1, 0.2, 0.3, 0.4),
        fill=1.0,
        pts_s=1.0,
        captured=10.0,
        latency_ms=None if state == "stale" else LATENCY,
    )


def told(messages: list[BroadcastMessage]) -> list[str | tuple[int, str]]:
    """Shorten messages to the states of the stream and of its faces, in order."""
    return [
        message.state if isinstance(message, StreamMessage) else (message.face, message.state)
        for message in messages
        if isinstance(message, StreamMessage | VerdictMessage)
    ]


def live(status: StreamStateMachine, *, faces: int = 1, now: float = 0.0) -> None:
    status.connected()
    status.analysed([verdict(face) for face in range(faces)], faces=faces, now=now)


def test_a_stream_is_live_only_once_a_frame_with_a_face_was_analysed(status: StreamStateMachine) -> None:
    """Opening a source proves nothing; the state comes before the first verdict, and is said once."""
    assert told(status.announce()) == ["connecting"]
    assert told(status.connected()) == []
    assert told(status.analysed([verdict()], faces=1, now=0.0)) == ["live", (0, "real")]
    assert told(status.analysed([verdict()], faces=1, now=0.1)) == [(0, "real")]


def test_no_face(status: StreamStateMachine) -> None:
    """Frames without a face are a state of their own; the last face's farewell comes before it."""
    live(status)
    gone = verdict(state="stale", p_fake=None)
    assert told(status.analysed([gone], faces=0, now=0.1)) == [(0, "stale"), "no_face"]
    assert told(status.analysed([], faces=0, now=0.2)) == []


def test_frames_that_stop_make_every_face_stale(status: StreamStateMachine) -> None:
    """Without a next frame, time alone ends the verdicts, once, without a score and before the state."""
    live(status, faces=2)
    assert status.tick(0.5) == []
    messages = status.tick(0.51)
    assert told(messages) == [(0, "stale"), (1, "stale"), "stalled"]
    assert all(message.p_fake is None for message in messages if isinstance(message, VerdictMessage))
    assert status.tick(9.0) == []
    assert told(status.analysed([verdict()], faces=1, now=9.1)) == ["live", (0, "real")]


def test_a_lost_source_is_offline_with_its_reason(status: StreamStateMachine) -> None:
    """Losing the source ends the verdicts at once; further attempts that fail alike say nothing new."""
    live(status)
    messages = status.dropped("the stream stopped")
    assert told(messages) == [(0, "stale"), "offline"]
    assert messages[-1] == StreamMessage(stream="cam", state="offline", reason="the stream stopped")
    assert status.dropped("the stream stopped") == []
    assert told(status.dropped("connection refused")) == ["offline"]
    assert status.tick(60.0) == []
    assert told(status.connected()) == ["connecting"]
    assert told(status.analysed([verdict(7)], faces=1, now=61.0)) == ["live", (7, "real")]


def test_frames_of_a_lost_connection_do_not_count(status: StreamStateMachine) -> None:
    """What was under way when the source went away is not news, even after its return."""
    status.connected()
    before = status.connection
    assert status.accepts(before)
    status.dropped("reset")
    assert not status.accepts(before)
    status.connected()
    assert not status.accepts(before)
    assert status.accepts(status.connection)


def test_a_source_too_slow_is_never_scored(status: StreamStateMachine) -> None:
    """Its frames do not count and it does not stall, until it recovers."""
    live(status)
    messages = status.too_slow(3.0, 5.333)
    assert told(messages) == [(0, "stale"), "too_slow"]
    assert messages[-1].reason == "3 frames a second, at least 5.33 are needed"  # type: ignore[union-attr]
    assert not status.accepts(status.connection)
    assert status.tick(99.0) == []
    assert told(status.fast_enough()) == ["connecting"]
    assert status.accepts(status.connection)


def test_the_end(status: StreamStateMachine) -> None:
    """An end and a failure both end the verdicts, under different names."""
    live(status)
    assert told(status.ended()) == [(0, "stale"), "ended"]
    other = StreamStateMachine("other", stall_timeout_s=0.5)
    live(other)
    assert told(other.failed("401")) == [(0, "stale"), "offline"]
    assert not other.accepts(other.connection)


def test_a_face_says_goodbye_once(status: StreamStateMachine) -> None:
    """A face that is stale already, or of which nothing was said, is not made stale again."""
    live(status)
    status.tick(1.0)
    gone = verdict(state="stale", p_fake=None)
    assert told(status.analysed([gone, verdict(1)], faces=1, now=1.1)) == ["live", (1, "real")]


def test_health_counts(status: StreamStateMachine) -> None:
    """A lost connection counts; an attempt that never got one does not."""
    status.dropped("refused")
    live(status)
    status.dropped("stopped")
    status.dropped("refused")
    health = status.health(dropped=3)
    assert (health.state, health.analysed, health.dropped, health.reconnects) == ("offline", 1, 3, 1)
