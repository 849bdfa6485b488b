"""What holds now: the last message of every stream, and of every face that still has a verdict.

Pure: stamped messages go in, and what a client that joins must know comes out.
"""

from __future__ import annotations

from runtime.messages import BroadcastDict, StreamDict, VerdictDict

# Longer than the monitor lets a verdict live: what is older comes from a thread that hangs.
EXPIRY_S = 5.0


class SnapshotStore:
    """Keeps the present out of the broadcast messages.

    A face leaves the board when its verdict is `stale`, when its stream is anything but `live`, or when
    nothing was said of it for `expiry_s`. So the board does not grow with time, though ids are never reused.

    Args:
        expiry_s: The age at which a verdict no longer holds, in seconds.
    """

    def __init__(self, *, expiry_s: float = EXPIRY_S) -> None:
        self.expiry_s = expiry_s
        self._streams: dict[str, StreamDict] = {}
        self._verdicts: dict[tuple[str, int], VerdictDict] = {}

    def apply(self, message: BroadcastDict) -> None:
        """Take in the next broadcast message."""
        if message["type"] == "verdict":
            face = (message["stream"], message["face"])
            if message["state"] == "stale":
                self._verdicts.pop(face, None)
            else:
                self._verdicts[face] = message
        elif message["type"] == "stream":
            stream = message["stream"]
            self._streams[stream] = message
            if message["state"] != "live":
                self._verdicts = {face: said for face, said in self._verdicts.items() if face[0] != stream}
        else:
            self._expire(message["time"])

    def streams(self) -> list[StreamDict]:
        """Give the last message of every stream, in the order in which the streams first spoke."""
        return list(self._streams.values())

    def verdicts(self, now: float) -> list[VerdictDict]:
        """Give the verdicts that hold.

        Args:
            now: Unix seconds.

        Returns:
            The last message of every face, none older than `expiry_s`.
        """
        self._expire(now)
        return list(self._verdicts.values())

    def _expire(self, now: float) -> None:
        # Both sides, as a clock that is set back must not make a verdict immortal.
        self._verdicts = {
            face: said for face, said in self._verdicts.items() if abs(now - said["time"]) <= self.expiry_s
        }
