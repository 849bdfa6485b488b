"""Tests of the live table and of the event log."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from rich.console import Console

from runtime.commands.console import EventLog, LiveConsole
from runtime.messages import (
    BroadcastMessage,
    FaceState,
    HeartbeatMessage,
    Latency,
    StreamHealth,
    StreamMessage,
    VerdictMessage,
    encode,
)
from runtime.serving.client_queue import EncodedMessage

NOW = 1000.0


def verdict(state: FaceState, p_fake: float | None = None, *, face: int = 1) -> VerdictMessage:
    return VerdictMessage(
        stream="cam",
        face=face,
        state=state,
        p_fake=p_fake,
        box=(0.1, 0.1, 0.2, 0.3),
        window_fill=0.5,
        pts_s=1.0,
        latency_ms=None
        if state == "stale"
        else Latency(decode=1.0, detect=2.0, crop=0.5, backbone=3.0, head=4.0, total=81.6),
    )


def send(sink: Callable[[EncodedMessage], None], *messages: BroadcastMessage, now: float = NOW) -> None:
    for seq, message in enumerate(messages, 1):
        stamped = message.stamp(seq, now)
        sink(EncodedMessage(stamped, encode(stamped)))


def rendered(table: LiveConsole) -> str:
    """Return the table as shown in 100 columns, without colours."""
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    return out.getvalue()


@pytest.fixture
def table() -> LiveConsole:
    return LiveConsole(clock=lambda: 0.0)


def test_table_shows_each_face(table: LiveConsole) -> None:
    """A scored face is shown with score and latency, a warming one with its window fill."""
    send(
        table,
        StreamMessage(stream="cam", state="live"),
        verdict("fake", 0.91),
        verdict("warming", face=2),
    )
    fake, warming = rendered(table).splitlines()[1:]
    assert fake.split()[:5] == ["cam", "live", "1", "fake", "0.91"]
    assert "82 ms" in fake
    assert warming.split()[:3] == ["2", "warming", "50%"]


def test_table_removes_stale_faces(table: LiveConsole) -> None:
    """A stale face disappears; a stream without faces is shown with its reason."""
    send(table, StreamMessage(stream="cam", state="live"), verdict("real", 0.1), verdict("stale"))
    assert "real" not in rendered(table)
    send(table, verdict("real", 0.1), StreamMessage(stream="cam", state="offline", reason="refused"))
    text = rendered(table)
    assert "real" not in text
    assert "offline" in text
    assert "refused" in text


def test_table_shows_no_expired_verdict() -> None:
    """A verdict disappears after its expiry even without a further message."""
    now = [0.0]
    table = LiveConsole(clock=lambda: now[0])
    send(table, StreamMessage(stream="cam", state="live"), verdict("real", 0.1))
    assert "real" in rendered(table)
    now[0] = 60.0
    assert "real" not in rendered(table)


def test_table_shows_dropped_samples(table: LiveConsole) -> None:
    """The count in the heartbeat is shown in the row of its stream."""
    health = StreamHealth(stream="cam", state="no_face", analysed=8, dropped=37)
    send(
        table, StreamMessage(stream="cam", state="no_face"), HeartbeatMessage(uptime_s=1.0, streams=(health,))
    )
    assert "37" in rendered(table)


def test_names_are_not_markup(table: LiveConsole) -> None:
    """Brackets in a stream name are shown literally."""
    send(table, StreamMessage(stream="[red]take[/red] 2.mp4", state="live"))
    assert "[red]take[/red] 2.mp4" in rendered(table)


def test_log_has_one_line_per_change(caplog: pytest.LogCaptureFixture) -> None:
    """Repeated states and heartbeats are not logged."""
    caplog.set_level(logging.INFO, logger="runtime.commands.console")
    send(
        EventLog(),
        StreamMessage(stream="cam", state="live"),
        verdict("warming"),
        verdict("warming"),
        verdict("real", 0.12),
        verdict("real", 0.13),
        HeartbeatMessage(uptime_s=1.0),
        verdict("fake", 0.8),
        verdict("fake", 0.9, face=2),
        verdict("stale"),
        StreamMessage(stream="cam", state="offline", reason="the stream stopped"),
    )
    assert [record.getMessage() for record in caplog.records] == [
        "cam: live",
        "cam: face 1 is warming",
        "cam: face 1 is real (p_fake 0.12)",
        "cam: face 1 is fake (p_fake 0.80)",
        "cam: face 2 is fake (p_fake 0.90)",
        "cam: face 1 is gone",
        "cam: offline (the stream stopped)",
    ]
