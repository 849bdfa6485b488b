"""Current state: the last message of every stream, and of every face whose verdict is still valid.

No I/O: published messages are passed in, the content of the `snapshot` message is returned.
"""

from __future__ import annotations

from runtime.messages import BroadcastMessage, StreamMessage, VerdictMessage

# Longer than a verdict is valid in the monitor; an older one is from a thread that hangs.
EXPIRY_S = 5.0


class SnapshotStore:
    """Current state, updated with each published message.

    A verdict is removed when it is `stale`, when its stream is no longer `live`, or when no newer one
    replaced it for `expiry_s`. The store therefore stays small although track ids are never reused.

    Args:
        expiry_s: Age in seconds above which a verdict is no longer valid.
    """

    def __init__(self, *, expiry_s: float = EXPIRY_S) -> None:
        self.expiry_s = expiry_s
        self._streams: dict[str, StreamMessage] = {}
        self._verdicts: dict[tuple[str, int], VerdictMessage] = {}

    def apply(self, message: BroadcastMessage) -> None:
        """Update the state with the next published message."""
        if isinstance(message, VerdictMessage):
            face = (message.stream, message.face)
            if message.state == "stale":
                self._verdicts.pop(face, None)
            else:
                self._verdicts[face] = message
        elif isinstance(message, StreamMessage):
            self._streams[message.stream] = message
            if message.state != "live":
                self._verdicts = {
                    face: verdict for face, verdict in self._verdicts.items() if face[0] != message.stream
                }
        else:
            self._expire(message.time)

    def streams(self) -> list[StreamMessage]:
        """Return the last message of every stream, in order of first appearance."""
        return list(self._streams.values())

    def verdicts(self, now: float) -> list[VerdictMessage]:
        """Return the last message of every face with a valid verdict.

        Args:
            now: Unix seconds.
        """
        self._expire(now)
        return list(self._verdicts.values())

    def _expire(self, now: float) -> None:
        # `abs`, because after the clock was set back a verdict would otherwise not expire.
        self._verdicts = {
            face: verdict
            for face, verdict in self._verdicts.items()
            if abs(now - verdict.time) <= self.expiry_s
        }
