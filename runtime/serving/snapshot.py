"""Current state: the last message of every stream, and of every face whose verdict is still valid.

No I/O: published messages are passed in, the content of the `snapshot` message is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.messages import BroadcastMessage, StreamMessage, VerdictMessage

# Longer than a verdict is valid in the monitor; an older one is from a thread that hangs.
EXPIRY_S = 5.0


class SnapshotStore:
    """Current state, updated with each published message.

    A verdict is removed when it is `stale`, when its stream is no longer `live`, or when no newer one
    replaced it for `expiry_s`. The store therefore stays small although track ids are never reused.

    Args:
        expiry_s: Age in seconds above which a verdict is no longer valid.
        clock: Monotonic clock in seconds. The wall clock may be set while the program runs.
    """

    def __init__(self, *, expiry_s: float = EXPIRY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.expiry_s = expiry_s
        self._clock = clock
        self._streams: dict[str, StreamMessage] = {}
        # With the time at which the verdict was published.
        self._verdicts: dict[tuple[str, int], tuple[VerdictMessage, float]] = {}

    def apply(self, message: BroadcastMessage) -> None:
        """Update the state with the next published message."""
        if isinstance(message, VerdictMessage):
            face = (message.stream, message.face)
            if message.state == "stale":
                self._verdicts.pop(face, None)
            else:
                self._verdicts[face] = message, self._clock()
        elif isinstance(message, StreamMessage):
            self._streams[message.stream] = message
            if message.state == "removed":
                del self._streams[message.stream]
            if message.state != "live":
                self._verdicts = {
                    face: verdict for face, verdict in self._verdicts.items() if face[0] != message.stream
                }
        else:
            self._expire()

    def streams(self) -> list[StreamMessage]:
        """Return the last message of every stream, in order of first appearance."""
        return list(self._streams.values())

    def verdicts(self) -> list[VerdictMessage]:
        """Return the last message of every face with a valid verdict."""
        self._expire()
        return [verdict for verdict, _ in self._verdicts.values()]

    def _expire(self) -> None:
        oldest = self._clock() - self.expiry_s
        self._verdicts = {face: entry for face, entry in self._verdicts.items() if entry[1] >= oldest}
