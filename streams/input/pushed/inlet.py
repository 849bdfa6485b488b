"""Bounded queue of decoded frames from a sender, such as a browser, to the capture of one source."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import av

from streams.errors import EndOfStream

__all__ = ["FrameInlet", "PushedFrame"]

_ROOM = 4


@dataclass(frozen=True, slots=True)
class PushedFrame:
    """Decoded frame of a sender and its arrival time in monotonic seconds."""

    image: av.VideoFrame
    arrival_s: float


class FrameInlet:
    """Entrance of one source, used by one sender after the other; newer frames replace older ones.

    Args:
        key: Name by which senders address the source; it may be secret.

    Attributes:
        dropped: Number of frames that were replaced before they were taken.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.dropped = 0
        self._changed = threading.Condition()
        self._frames: deque[PushedFrame] = deque()
        self._sender = 0
        self._open = False

    def begin(self) -> int:
        """Begin a sender, which replaces the one before; return its number."""
        with self._changed:
            self._sender += 1
            self._open = True
            self._frames.clear()
            self._changed.notify_all()
            return self._sender

    def push(self, sender: int, frame: PushedFrame) -> None:
        """Add a frame; one of a sender that was replaced or has ended is discarded."""
        with self._changed:
            if sender != self._sender or not self._open:
                return
            if len(self._frames) >= _ROOM:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
            self._changed.notify_all()

    def end(self, sender: int) -> None:
        """End a sender; frames that wait can still be taken."""
        with self._changed:
            if sender == self._sender:
                self._open = False
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> int | None:
        """Return the number of the present sender once it has sent a frame; None after the timeout."""
        with self._changed:
            ready = self._changed.wait_for(lambda: self._open and self._frames, timeout_s)
            return self._sender if ready else None

    def take(self, sender: int, timeout_s: float) -> PushedFrame | None:
        """Take the oldest frame of a sender.

        Args:
            sender: Its number.
            timeout_s: Longest wait.

        Returns:
            The frame; None after the timeout.

        Raises:
            EndOfStream: The sender has ended or was replaced.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._frames or not self._open or sender != self._sender, timeout_s
            )
            if sender == self._sender and self._frames:
                return self._frames.popleft()
            if sender != self._sender or not self._open:
                raise EndOfStream
            return None
