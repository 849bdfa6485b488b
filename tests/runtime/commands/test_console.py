"""What a person sees of the messages: a table that is always of now, or a line for each change."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from rich.console import Console

from runtime.commands.console import ChangeLog, LiveConsole
from runtime.messages import (
    BroadcastMessage,
    HeartbeatMessage,
    Latency,
    State,
    StreamHealth,
    StreamMessage,
    VerdictMessage,
    encode,
)
from runtime.serving.client_queue import EncodedMessage

NOW = 1000.0


def verdict(state: State, p_fake: float | None = None, *, face: int = 1) -> VerdictMessage:
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


def temporal_features(
    sink: Callable[[EncodedMessage], None], *messages: BroadcastMessage, now: float = NOW
) -> None:
    for seq, message in enumerate(messages, 1):
        stamped = message.stamp(seq, now)
        sink(EncodedMessage(stamped, encode(stamped)))


def drawn(table: LiveConsole) -> str:
    """Draw it as a terminal of 100 columns would show it, without colours."""
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    return out.getvalue()


@pytest.fixture
def table() -> LiveConsole:
    return LiveConsole(wall=lambda: NOW)


def test_the_table_shows_each_face(table: LiveConsole) -> None:
    """A scored face has its score and latency, one that warms up how far it is."""
    temporal_features(
        table,
        StreamMessage(stream="cam", state="live"),
        verdict("fake", 0.91),
        verdict("warming", face=2),
    )
    fake, warming = drawn(table).splitlines()[1:]
    assert fake.split()[:5] == ["cam", "live", "1", "fake", "0.91"]
    assert "82 ms" in fake
    assert warming.split()[:3] == ["2", "warming", "50%"]


def test_the_table_forgets_what_no_longer_holds(table: LiveConsole) -> None:
    """A stale face leaves it; a stream without faces shows why."""
    temporal_features(
        table, StreamMessage(stream="cam", state="live"), verdict("real", 0.1), verdict("stale")
    )
    assert "real" not in drawn(table)
    temporal_features(
        table, verdict("real", 0.1), StreamMessage(stream="cam", state="offline", reason="refused")
    )
    text = drawn(table)
    assert "real" not in text
    assert "offline" in text
    assert "refused" in text


def test_the_table_shows_no_verdict_that_is_old() -> None:
    """Should the program hang, what it said last does not stand there for ever."""
    table = LiveConsole(wall=lambda: NOW + 60)
    temporal_features(table, StreamMessage(stream="cam", state="live"), verdict("real", 0.1))
    assert "real" not in drawn(table)


def test_the_table_counts_dropped_samples(table: LiveConsole) -> None:
    """The heartbeat's figures stand in the row of their stream."""
    health = StreamHealth(stream="cam", state="no_face", analysed=8, dropped=37)
    temporal_features(
        table, StreamMessage(stream="cam", state="no_face"), HeartbeatMessage(uptime_s=1.0, streams=(health,))
    )
    assert "37" in drawn(table)


def test_names_are_shown_as_they_are(table: LiveConsole) -> None:
    """Brackets in a file's name are no markup."""
    temporal_features(table, StreamMessage(stream="[red]take[/red] 2.mp4", state="live"))
    assert "[red]take[/red] 2.mp4" in drawn(table)


def test_the_log_has_a_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    """Verdicts that repeat the last one are not logged, heartbeats neither."""
    caplog.set_level(logging.INFO, logger="runtime.commands.console")
    temporal_features(
        ChangeLog(),
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
