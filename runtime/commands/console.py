"""Display of broadcast messages: a live table in a terminal, or a log line for each change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runtime.messages import (
    FaceState,
    HeartbeatMessage,
    StreamHealth,
    StreamMessage,
    StreamState,
    VerdictMessage,
)
from runtime.outputs.changes import StateChanges
from runtime.outputs.standard_error import NOTICE
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.snapshot import SnapshotStore

logger = logging.getLogger(__name__)

STREAM_STYLES: dict[StreamState, str] = {
    "connecting": "cyan",
    "live": "green",
    "no_face": "dim",
    "too_slow": "yellow",
    "stalled": "yellow",
    "overloaded": "yellow",
    "offline": "red",
    "ended": "dim",
    "removed": "dim",
}
FACE_STYLES: dict[FaceState, str] = {
    "warming": "dim",
    "real": "bold green",
    "uncertain": "bold yellow",
    "fake": "bold red",
    "stale": "dim",
}
BAR_CELLS = 10


class LiveConsole:
    """Live table of every stream and its faces; a sink of the broadcaster, rendered by rich.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        # Messages come from the threads of the streams, and rich renders on a thread of its own.
        self._lock = threading.Lock()
        self._snapshot = SnapshotStore(clock=clock)
        self._health: dict[str, StreamHealth] = {}

    def __call__(self, encoded: EncodedMessage) -> None:
        """Apply a message."""
        message = encoded.message
        with self._lock:
            self._snapshot.apply(message)
            if isinstance(message, HeartbeatMessage):
                self._health = {health.stream: health for health in message.streams}

    def __rich__(self) -> Table:
        """Render the current state."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("stream", "state", "face", "verdict", "p_fake", "window"):
            table.add_column(column, no_wrap=True)
        table.add_column("latency", justify="right", no_wrap=True)
        table.add_column("dropped", justify="right", no_wrap=True)
        with self._lock:
            streams = self._snapshot.streams()
            verdicts = self._snapshot.verdicts()
            health = self._health
        for stream in streams:
            of_stream = [verdict for verdict in verdicts if verdict.stream == stream.stream]
            for row in _rows(stream, of_stream, health.get(stream.stream)):
                table.add_row(*row)
        return table


def _rows(
    stream: StreamMessage, verdicts: list[VerdictMessage], health: StreamHealth | None
) -> Iterator[tuple[str | Text, ...]]:
    state = Text(stream.state, STREAM_STYLES[stream.state])
    dropped = str(health.dropped) if health is not None else ""
    # The name of a file may contain rich markup.
    name = escape(stream.stream)
    if not verdicts:
        yield name, state, "", Text(stream.reason or "", "dim"), "", "", "", dropped
    for verdict in sorted(verdicts, key=lambda verdict: verdict.face):
        latency = verdict.latency_ms
        yield (
            name,
            state,
            str(verdict.face),
            Text(verdict.state, FACE_STYLES[verdict.state]),
            _score(verdict),
            f"{verdict.window_fill:.0%}",
            "" if latency is None else f"{latency.total:.0f} ms",
            dropped,
        )
        name, state, dropped = "", Text(), ""


def _score(verdict: VerdictMessage) -> Text:
    p_fake = verdict.p_fake
    if verdict.reason is not None:
        return Text(verdict.reason, "dim")
    if p_fake is None:
        return Text("")
    filled = round(BAR_CELLS * p_fake)
    return Text.assemble(
        f"{p_fake:.2f} ",
        ("━" * filled, FACE_STYLES[verdict.state]),
        ("━" * (BAR_CELLS - filled), "bright_black"),
    )


class EventLog:
    """Log lines for changes of the state of streams and faces; a sink of the broadcaster."""

    def __init__(self) -> None:
        self._changes = StateChanges()

    def __call__(self, encoded: EncodedMessage) -> None:
        """Log a message, unless it repeats the face's last state."""
        message = encoded.message
        if not self._changes.accepts(message):
            return
        if isinstance(message, StreamMessage):
            reason = message.reason
            logger.info("%s: %s%s", message.stream, message.state, f" ({reason})" if reason else "")
        elif isinstance(message, VerdictMessage):
            face, state = (message.stream, message.face), message.state
            if state == "stale":
                logger.info("%s: face %d is gone", *face)
            elif message.reason is not None:
                logger.info("%s: face %d is %s (%s)", *face, state, message.reason)
            elif message.p_fake is None:
                logger.info("%s: face %d is %s", *face, state)
            else:
                level = NOTICE if state == "fake" else logging.INFO
                logger.log(level, "%s: face %d is %s (p_fake %.2f)", *face, state, message.p_fake)
