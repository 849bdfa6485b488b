"""Bounded queue of messages for one client; newer messages replace older ones about the same subject.

No I/O: `push` and `pop` decide which messages a slow client loses.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

from runtime.messages import BroadcastMessage, StreamMessage, VerdictMessage


@dataclass(frozen=True, slots=True)
class EncodedMessage:
    """Published message with its JSON, which is encoded once for all clients.

    Args:
        message: The stamped message.
        data: JSON of the message: one line in ASCII without a line break.
    """

    message: BroadcastMessage
    data: bytes

    @property
    def seq(self) -> int:
        """Number of the message."""
        return self.message.seq

    @property
    def subject(self) -> Hashable:
        """Key of the face, stream or program that the message is about."""
        match self.message:
            case VerdictMessage(stream=stream, face=face):
                return ("verdict", stream, face)
            case StreamMessage(stream=stream):
                return ("stream", stream)
            case _:
                return ("heartbeat",)


class OutboundQueue:
    """First-in, first-out queue of at most `capacity` messages.

    When it is full, the oldest message with a newer one about the same subject is dropped. If there is none,
    the oldest verdict is dropped, and a stream's state only when no verdict is left.

    Args:
        capacity: Maximum number of waiting messages, at least 1.

    Attributes:
        lost: Number of messages dropped so far.

    Raises:
        ValueError: The capacity is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of an outbound queue must be at least 1, not {capacity}")
        self.capacity = capacity
        self.lost = 0
        self._queue: deque[EncodedMessage] = deque()
        self._by_subject: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, encoded: EncodedMessage) -> None:
        """Append a message, dropping another one if the queue is full."""
        self._queue.append(encoded)
        self._by_subject[encoded.subject] += 1
        if len(self._queue) > self.capacity:
            self._drop_one()
            self.lost += 1

    def pop(self) -> EncodedMessage | None:
        """Remove and return the oldest message; None if the queue is empty."""
        return self._remove(0) if self._queue else None

    def _drop_one(self) -> None:
        oldest_verdict = None
        # The message just appended is never dropped.
        for index in range(len(self._queue) - 1):
            encoded = self._queue[index]
            if self._by_subject[encoded.subject] > 1:
                self._remove(index)
                return
            if oldest_verdict is None and isinstance(encoded.message, VerdictMessage):
                oldest_verdict = index
        self._remove(oldest_verdict or 0)

    def _remove(self, index: int) -> EncodedMessage:
        encoded = self._queue[index]
        del self._queue[index]
        self._by_subject[encoded.subject] -= 1
        if not self._by_subject[encoded.subject]:
            del self._by_subject[encoded.subject]
        return encoded
