"""What a stream says of itself: its state, and the end of its verdicts when frames stop.

Pure: what happened and a time go in, the messages to send come out, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runtime.messages import (
    BroadcastMessage,
    StreamHealth,
    StreamMessage,
    StreamState,
    VerdictMessage,
)

Messages = list[BroadcastMessage]


class StreamStateMachine:
    """Follows one stream from the first attempt to its end.

    A face has a verdict only while the stream is `live`: whatever takes it out of that state first makes
    every face `stale`. Frames count only while the source is connected, so nothing that was under way when a
    camera went away is said of it afterwards.

    Args:
        stream: The stream's name.
        stall_timeout_s: Frames that fail to come for longer than this have stopped.
    """

    def __init__(self, stream: str, *, stall_timeout_s: float) -> None:
        self.stream = stream
        self.stall_timeout_s = stall_timeout_s
        self.state: StreamState = "connecting"
        self.reason: str | None = None
        # Counts connections. A frame belongs to the one in which it was taken.
        self.connection = 0
        self._connected = False
        self._too_slow = False
        self._frame_at: float | None = None
        self._shown: dict[int, VerdictMessage] = {}
        self._analysed = 0
        self._lost = 0

    def announce(self) -> Messages:
        """Say that the stream exists."""
        return [self._message()]

    def connected(self) -> Messages:
        """Take in that the source was opened; it is `live` only once a frame was analysed."""
        self._connected = True
        self._too_slow = False
        self._frame_at = None
        self.connection += 1
        return self._become("connecting")

    def dropped(self, reason: str) -> Messages:
        """Take in that the source was lost, or could not be opened, and will be tried again.

        Args:
            reason: Why, without credentials; best the same words for every attempt of one outage.
        """
        self._lost += self._connected
        self._connected = False
        return self._become("offline", reason)

    def failed(self, reason: str) -> Messages:
        """Take in that the source is given up.

        Args:
            reason: Why, without credentials.
        """
        self._connected = False
        return self._become("offline", reason)

    def ended(self) -> Messages:
        """Take in that the source came to its end."""
        self._connected = False
        return self._become("ended")

    def too_slow(self, fps: float, needed_hz: float) -> Messages:
        """Take in that the source gives fewer frames than the model can be asked about.

        Args:
            fps: Frames a second that it gives.
            needed_hz: Frames a second that the model needs at least.
        """
        self._too_slow = True
        return self._become("too_slow", f"{fps:.3g} frames a second, at least {needed_hz:.3g} are needed")

    def fast_enough(self) -> Messages:
        """Take in that a source that was too slow has recovered."""
        self._too_slow = False
        self._frame_at = None
        return self._become("connecting")

    def accepts(self, connection: int) -> bool:
        """Tell whether frames of a connection count at this moment.

        Args:
            connection: `connection` as it was when the first of its frames was taken.
        """
        return self._connected and not self._too_slow and connection == self.connection

    def analysed(self, verdicts: Sequence[VerdictMessage], *, faces: int, now: float) -> Messages:
        """Take in what one frame of the present connection brought.

        Args:
            verdicts: To be sent; may be empty if none is due.
            faces: How many faces are followed.
            now: When the frame was taken up.

        Returns:
            The verdicts, with a change of state before them, or after them when the last face has gone.
        """
        self._analysed += 1
        self._frame_at = now
        messages: Messages = []
        if faces:
            messages += self._become("live")
        for verdict in verdicts:
            known = self._shown.pop(verdict.face, None)
            if verdict.state != "stale":
                self._shown[verdict.face] = verdict
            elif known is None:
                continue  # it has been said, or nothing was ever said of this face
            messages.append(verdict)
        if not faces:
            messages += self._become("no_face")
        return messages

    def tick(self, now: float) -> Messages:
        """Take in that time passes, whether or not frames come.

        Args:
            now: On the clock of `analysed`.
        """
        if self._frame_at is None or now - self._frame_at <= self.stall_timeout_s:
            return []
        if self.state not in ("live", "no_face"):
            return []
        return self._become("stalled", f"no frame for more than {self.stall_timeout_s:.2g} s")

    def health(self, *, dropped: int) -> StreamHealth:
        """Count what happened so far.

        Args:
            dropped: Due samples that nobody analysed.
        """
        return StreamHealth(
            stream=self.stream,
            state=self.state,
            analysed=self._analysed,
            dropped=dropped,
            reconnects=self._lost,
        )

    def _become(self, state: StreamState, reason: str | None = None) -> Messages:
        if (state, reason) == (self.state, self.reason):
            return []
        self.state, self.reason = state, reason
        messages: Messages = []
        if state != "live":
            # The hub's `pts_s` and `captured` stay those of the frame that the last verdict was about.
            messages += [
                replace(verdict, state="stale", p_fake=None, latency_ms=None)
                for verdict in self._shown.values()
            ]
            self._shown.clear()
        return [*messages, self._message()]

    def _message(self) -> StreamMessage:
        return StreamMessage(stream=self.stream, state=self.state, reason=self.reason)
