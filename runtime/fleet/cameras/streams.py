"""State of each stream at the head, across the workers that have watched it. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from runtime.messages import (
    BroadcastMessage,
    DroppedBy,
    HeartbeatMessage,
    StreamHealth,
    StreamMessage,
    Thresholds,
    VerdictMessage,
)

Messages = list[BroadcastMessage]


@dataclass
class _Stream:
    message: StreamMessage
    # The last state of its worker, which may be hidden by `offline`.
    reported: StreamMessage
    verdicts: dict[int, VerdictMessage]
    past: StreamHealth
    health: StreamHealth
    max_face: int = 0


class StreamStates:
    """Streams of a fleet: their states, valid verdicts and counters.

    Args:
        names: Names of the streams, in the order of the file.
        thresholds: Thresholds of those that have their own.
    """

    def __init__(self, names: Iterable[str], thresholds: dict[str, Thresholds]) -> None:
        self._streams: dict[str, _Stream] = {}
        for name in names:
            message = StreamMessage(stream=name, state="connecting", thresholds=thresholds.get(name))
            health = StreamHealth(stream=name, state="connecting")
            self._streams[name] = _Stream(
                message=message, reported=message, verdicts={}, past=health, health=health
            )

    def current(self) -> Messages:
        """Return the state of every stream."""
        return [stream.message for stream in self._streams.values()]

    def max_face(self, name: str) -> int:
        """Return the highest id of a face of a stream so far."""
        return self._streams[name].max_face

    def received(self, message: BroadcastMessage) -> Messages:
        """Handle a message of the worker of a stream, and return what to publish."""
        assert not isinstance(message, HeartbeatMessage)
        stream = self._streams[message.stream]
        if isinstance(message, VerdictMessage):
            stream.max_face = max(stream.max_face, message.face)
            if message.state == "stale":
                stream.verdicts.pop(message.face, None)
            else:
                stream.verdicts[message.face] = message
        else:
            stream.message = stream.reported = message
            if message.state != "live":
                stream.verdicts.clear()
        return [message]

    def offline(self, name: str, reason: str) -> Messages:
        """Handle a stream without a worker: its verdicts become stale.

        Args:
            name: Name of the stream.
            reason: Cause in one line.
        """
        stream = self._streams[name]
        message = replace(stream.message, state="offline", reason=reason)
        stale: Messages = [
            replace(verdict, state="stale", p_fake=None, latency_ms=None, reason=None)
            for verdict in stream.verdicts.values()
        ]
        stream.verdicts.clear()
        changed = (stream.message.state, stream.message.reason) != ("offline", reason)
        stream.message = message
        return [*stale, message] if changed else stale

    def recovered(self, name: str) -> Messages:
        """Handle a worker that answers again: the stream has the state that it had reported last."""
        stream = self._streams[name]
        if stream.message is stream.reported:
            return []
        stream.message = stream.reported
        return [stream.message]

    def counted(self, health: StreamHealth) -> None:
        """Take over the counters of the present worker of a stream."""
        self._streams[health.stream].health = health

    def left(self, name: str) -> None:
        """Keep the counters of a worker that no longer watches a stream."""
        stream = self._streams[name]
        stream.past = _sum(stream.past, stream.health)
        stream.health = StreamHealth(stream=name, state=stream.message.state)

    def health(self) -> tuple[StreamHealth, ...]:
        """Return the counters of all streams since the start."""
        return tuple(
            replace(_sum(stream.past, stream.health), state=stream.message.state)
            for stream in self._streams.values()
        )


def _sum(past: StreamHealth, present: StreamHealth) -> StreamHealth:
    dropped = {
        cause: count + getattr(past.dropped_by, cause)
        for cause, count in msgspec.structs.asdict(present.dropped_by).items()
    }
    return replace(
        present,
        analysed=past.analysed + present.analysed,
        dropped=past.dropped + present.dropped,
        dropped_by=DroppedBy(**dropped),
        reconnects=past.reconnects + present.reconnects,
    )
