"""Tests of the stream state machine, with events and times only."""

from __future__ import annotations

import pytest

from runtime.messages import BroadcastMessage, DroppedBy, FaceState, Latency, StreamMessage, VerdictMessage
from runtime.pipeline.stream_state import RECOVERY_FRAMES, StreamStateMachine
from streams.input.losses import Losses

LATENCY = Latency(decode=1.0, detect=2.0, crop=0.5, backbone=3.0, head=4.0, total=20.0)


@pytest.fixture
def stream() -> StreamStateMachine:
    return StreamStateMachine("cam", stall_timeout_s=0.5)


def verdict(face: int = 0, state: FaceState = "real", p_fake: float | None = 0.1) -> VerdictMessage:
    return VerdictMessage(
        stream="cam",
        face=face,
        state=state,
        p_fake=p_fake,
        box=(0.1, 0.2, 0.3, 0.4),
        window_fill=1.0,
        pts_s=1.0,
        captured=10.0,
        latency_ms=None if state == "stale" else LATENCY,
    )


def states(messages: list[BroadcastMessage]) -> list[str | tuple[int, str]]:
    """Reduce messages to the states of the stream and of its faces, in order."""
    return [
        message.state if isinstance(message, StreamMessage) else (message.face, message.state)
        for message in messages
        if isinstance(message, StreamMessage | VerdictMessage)
    ]


def go_live(stream: StreamStateMachine, *, faces: int = 1, now: float = 0.0) -> None:
    stream.connected()
    stream.frame_analysed([verdict(face) for face in range(faces)], faces=faces, now=now)


def recover(
    stream: StreamStateMachine, verdicts: list[VerdictMessage], *, now: float
) -> list[list[str | tuple[int, str]]]:
    """Analyse a frame after an interruption and the frames in time that make the stream live again."""
    times = [now + 0.125 * i for i in range(RECOVERY_FRAMES + 1)]
    return [states(stream.frame_analysed(verdicts, faces=1, now=time)) for time in times]


def test_stream_is_live_after_the_first_analysed_frame(stream: StreamStateMachine) -> None:
    """An opened source is still `connecting`; `live` comes once, before the first verdict."""
    assert states(stream.current()) == ["connecting"]
    assert states(stream.connected()) == []
    assert states(stream.frame_analysed([verdict()], faces=1, now=0.0)) == ["live", (0, "real")]
    assert states(stream.frame_analysed([verdict()], faces=1, now=0.1)) == [(0, "real")]


def test_no_face(stream: StreamStateMachine) -> None:
    """When the last face is gone, its stale verdict comes before the state `no_face`."""
    go_live(stream)
    gone = verdict(state="stale", p_fake=None)
    assert states(stream.frame_analysed([gone], faces=0, now=0.1)) == [(0, "stale"), "no_face"]
    assert states(stream.frame_analysed([], faces=0, now=0.2)) == []


def test_faces_become_stale_when_frames_stop(stream: StreamStateMachine) -> None:
    """After the stall timeout every face becomes stale once, without a score, before `stalled`."""
    go_live(stream, faces=2)
    assert stream.tick(0.5) == []
    messages = stream.tick(0.51)
    assert states(messages) == [(0, "stale"), (1, "stale"), "stalled"]
    assert all(message.p_fake is None for message in messages if isinstance(message, VerdictMessage))
    assert stream.tick(9.0) == []
    assert recover(stream, [verdict()], now=9.1) == [[], [], [], ["live", (0, "real")]]


def test_disconnected_source_is_offline_with_its_reason(stream: StreamStateMachine) -> None:
    """A disconnection ends the verdicts at once; further attempts with the same reason publish nothing."""
    go_live(stream)
    messages = stream.disconnected("the stream stopped")
    assert states(messages) == [(0, "stale"), "offline"]
    assert messages[-1] == StreamMessage(stream="cam", state="offline", reason="the stream stopped")
    assert stream.disconnected("the stream stopped") == []
    assert states(stream.disconnected("connection refused")) == ["offline"]
    assert stream.tick(60.0) == []
    assert states(stream.connected()) == ["connecting"]
    assert states(stream.frame_analysed([verdict(7)], faces=1, now=61.0)) == ["live", (7, "real")]


def test_frames_of_an_earlier_connection_are_not_accepted(stream: StreamStateMachine) -> None:
    """Frames taken before a disconnection do not count, even after the source has reconnected."""
    stream.connected()
    before = stream.connection
    assert stream.accepts(before)
    stream.disconnected("reset")
    assert not stream.accepts(before)
    stream.connected()
    assert not stream.accepts(before)
    assert stream.accepts(stream.connection)


def test_source_that_is_too_slow_is_not_scored(stream: StreamStateMachine) -> None:
    """Its frames are not accepted and it does not stall, until the frame rate recovers."""
    go_live(stream)
    messages = stream.too_slow(3.0, 5.333)
    assert states(messages) == [(0, "stale"), "too_slow"]
    assert messages[-1].reason == "3 frames a second, at least 5.33 are needed"  # type: ignore[union-attr]
    assert not stream.accepts(stream.connection)
    assert stream.tick(99.0) == []
    assert states(stream.fast_enough()) == ["connecting"]
    assert stream.accepts(stream.connection)


def test_end_and_failure_end_the_verdicts(stream: StreamStateMachine) -> None:
    """An ended source is `ended`, a failed one `offline`; both make the faces stale first."""
    go_live(stream)
    assert states(stream.ended()) == [(0, "stale"), "ended"]
    other = StreamStateMachine("other", stall_timeout_s=0.5)
    go_live(other)
    assert states(other.failed("401")) == [(0, "stale"), "offline"]
    assert not other.accepts(other.connection)


def test_face_becomes_stale_once(stream: StreamStateMachine) -> None:
    """A stale verdict is not published for a face that is stale already or was never published."""
    go_live(stream)
    stream.tick(1.0)
    gone = verdict(state="stale", p_fake=None)
    assert recover(stream, [gone, verdict(1)], now=1.1)[-1] == ["live", (1, "real")]


def test_health_counters(stream: StreamStateMachine) -> None:
    """A lost connection counts as a reconnect; an attempt that never connected does not."""
    stream.disconnected("refused")
    go_live(stream)
    stream.disconnected("stopped")
    stream.disconnected("refused")
    health = stream.health(Losses(queue=2, corrupt=1))
    assert health.dropped_by == DroppedBy(queue=2, corrupt=1)
    assert (health.state, health.analysed, health.dropped, health.reconnects) == ("offline", 1, 3, 1)


def test_wrong_clock_is_the_reason_of_later_states(stream: StreamStateMachine) -> None:
    """It is published at once if the stream is live, kept as the reason, and forgotten when it reconnects."""
    go_live(stream)
    (message,) = stream.wrong_clock("the source's time stamps do not advance")
    wanted = "the source's time stamps do not advance; arrival times are used instead"
    assert message == StreamMessage(stream="cam", state="live", reason=wanted)
    assert stream.frame_analysed([verdict()], faces=1, now=0.1) == [verdict()]
    (_, message) = stream.frame_analysed([verdict(state="stale", p_fake=None)], faces=0, now=0.2)
    assert message == StreamMessage(stream="cam", state="no_face", reason=wanted)
    stream.disconnected("reset")
    stream.connected()
    message, _ = stream.frame_analysed([verdict()], faces=1, now=0.3)
    assert message == StreamMessage(stream="cam", state="live")


def test_repeated_frames_stall_the_stream(stream: StreamStateMachine) -> None:
    """A source that keeps sending the same frame is stalled, with a reason of its own."""
    go_live(stream)
    for i in range(1, 6):
        stream.frame_repeated(0.125 * i)
    messages = stream.tick(0.63)
    assert states(messages) == [(0, "stale"), "stalled"]
    assert messages[-1].reason == "the image has not changed for more than 0.5 s"  # type: ignore[union-attr]
    health = stream.health(Losses(queue=1))
    assert (health.analysed, health.dropped, health.dropped_by.repeated) == (1, 6, 5)


@pytest.mark.parametrize("interruption", ["a new connection", "too slow for a while"])
def test_an_image_that_an_interruption_left_unchanged_stalls_the_stream(
    stream: StreamStateMachine, interruption: str
) -> None:
    """Its first frame repeats the last one from before; the stream does not stay `connecting`."""
    go_live(stream)
    if interruption == "a new connection":
        stream.disconnected("reset")
        stream.connected()
    else:
        stream.too_slow(2.0, 4.6)
        stream.fast_enough()
    earlier = Losses(queue=3)
    for i in range(5):
        stream.frame_repeated(10 + 0.125 * i, losses=earlier)
    assert stream.tick(10.5, losses=earlier) == []
    (message,) = stream.tick(10.6, losses=earlier)
    assert message == StreamMessage(
        stream="cam", state="stalled", reason="the image has not changed for more than 0.5 s"
    )
    assert recover(stream, [verdict()], now=10.7)[-1] == ["live", (0, "real")]


@pytest.mark.parametrize(
    ("analysing_since", "losses"), [(0.0, Losses()), (None, Losses(queue=1)), (None, Losses(skipped=1))]
)
def test_slow_machine_is_overloaded_and_not_a_dead_camera(
    stream: StreamStateMachine, analysing_since: float | None, losses: Losses
) -> None:
    """A frame in analysis, or frames dropped meanwhile, mean an overload and not a stopped source."""
    go_live(stream)
    messages = stream.tick(0.51, analysing_since=analysing_since, losses=losses)
    assert states(messages) == [(0, "stale"), "overloaded"]
    assert "this machine is too slow" in messages[-1].reason  # type: ignore[union-attr, operator]


def test_frame_in_analysis_ends_the_silence_of_a_source(stream: StreamStateMachine) -> None:
    """A late frame is not an overload, unless its analysis takes too long itself."""
    go_live(stream)
    assert stream.tick(0.51, analysing_since=0.4) == []
    assert states(stream.tick(0.91, analysing_since=0.4))[-1] == "overloaded"


def test_earlier_losses_are_no_overload(stream: StreamStateMachine) -> None:
    """Samples that were lost before the last frame do not explain why no other one came."""
    stream.connected()
    stream.frame_analysed([verdict()], faces=1, now=0.0, losses=Losses(queue=3))
    assert states(stream.tick(0.51, losses=Losses(queue=3, corrupt=4))) == [(0, "stale"), "stalled"]


def test_interrupted_stream_does_not_flap(stream: StreamStateMachine) -> None:
    """Frames that are slow to come, or to be analysed, leave the stream interrupted."""
    go_live(stream)
    stream.tick(0.6, analysing_since=0.05)
    for i in range(1, 20):
        late = stream.frame_analysed([verdict()], faces=1, now=float(i), done=i + 0.7)
        assert states([*late, *stream.tick(i + 0.6)]) == []
    assert stream.state == "overloaded"
    assert recover(stream, [verdict()], now=30.0)[-1] == ["live", (0, "real")]


@pytest.mark.parametrize(("lost", "states_seen"), [(3, {"overloaded"}), (1, {"live"})])
def test_stream_without_a_score_is_overloaded_if_most_samples_are_lost(
    stream: StreamStateMachine, lost: int, states_seen: set[str]
) -> None:
    """Windows that never fill are not `warming` for ever; with a score, the stream is live again."""
    stream.connected()
    warming = verdict(state="warming", p_fake=None)
    for i in range(10):
        stream.frame_analysed([warming], faces=1, now=0.5 * i, losses=Losses(queue=lost * i))
    assert {stream.state} == states_seen
    for i in range(10, 13):
        stream.frame_analysed([verdict()], faces=1, now=0.5 * i, losses=Losses(queue=lost * i))
    assert stream.state == "live"
