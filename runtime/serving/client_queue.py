"""Bounded queue of messages for one client; newer messages replace older ones about the same subject.

Used by the server for each connection, and by `runtime.client` for the program that receives the messages. No
I/O, no clock: `push` and `pop` decide which messages a slow client loses.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from runtime.messages import BroadcastMessage, StreamMessage, VerdictMessage

Subject: TypeAlias = tuple[str | int, ...]

HEARTBEAT: Subject = ("heartbeat",)


class Queued(Protocol):
    """Message that can be queued."""

    @property
    def subject(self) -> Subject:
        """Key of the face, stream or program that the message is about: see `EncodedMessage.subject`."""

    @property
    def ends_verdicts(self) -> bool:
        """Whether the message ends the verdicts of its stream, as every state but `live` does."""


Item = TypeVar("Item", bound=Queued)


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
    def subject(self) -> Subject:
        """Key of the face, stream or program that the message is about."""
        match self.message:
            case VerdictMessage(stream=stream, face=face):
                return ("verdict", stream, face)
            case StreamMessage(stream=stream):
                return ("stream", stream)
            case _:
                return HEARTBEAT

    @property
    def ends_verdicts(self) -> bool:
        """Whether the message ends the verdicts of its stream."""
        return isinstance(self.message, StreamMessage) and self.message.state != "live"


class OutboundQueue(Generic[Item]):
    """Queue of at most `capacity` messages, in the order of their numbers.

    A client that keeps up receives every message. For a client that does not, outdated messages are dropped:
    those with a newer message about the same subject, verdicts whose stream is no longer live, and
    heartbeats. The newest message about a subject is dropped only when more subjects than `capacity` wait.

    - When the queue is full, the oldest outdated message is dropped; if there is none, the oldest verdict,
      and a stream's state only when no verdict is left.
    - When the first message has waited for more than `max_wait_s`, outdated messages are dropped up to the
      message whose subject was delivered the longest ago. Every subject therefore gets its turn, and a client
      of any speed receives messages that are about `max_wait_s` old.

    Args:
        capacity: Maximum number of waiting messages, at least 1.
        max_wait_s: Waiting time in seconds from which outdated messages are dropped.

    Attributes:
        lost: Number of messages dropped so far.

    Raises:
        ValueError: The capacity is below 1.
    """

    def __init__(self, capacity: int, *, max_wait_s: float = math.inf) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of an outbound queue must be at least 1, not {capacity}")
        self.capacity = capacity
        self.max_wait_s = max_wait_s
        self.lost = 0
        self._queue: deque[tuple[Item, float]] = deque()
        self._by_subject: Counter[Subject] = Counter()
        # Number of the last delivery of each subject, oldest first.
        self._deliveries: dict[Subject, int] = {}
        self._delivered = 0

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, item: Item, now: float = 0.0) -> None:
        """Append a message, dropping another one if the queue is full.

        Args:
            item: The message.
            now: Present time in seconds, from any clock that never steps back.
        """
        self._queue.append((item, now))
        self._by_subject[item.subject] += 1
        if len(self._queue) > self.capacity:
            self._drop_one()

    def pop(self, now: float = 0.0) -> Item | None:
        """Remove and return the next message; None if the queue is empty.

        Args:
            now: Present time in seconds, from the same clock as for `push`.
        """
        if not self._queue:
            return None
        if now - self._queue[0][1] > self.max_wait_s:
            self._skip_outdated()
        item = self._remove(0)
        self.note_delivery(item)
        return item

    def note_delivery(self, item: Item) -> None:
        """Note that a message was delivered, also one that passed an empty queue by."""
        subject = item.subject
        self._delivered += 1
        self._deliveries.pop(subject, None)
        self._deliveries[subject] = self._delivered
        if len(self._deliveries) > 2 * self.capacity:
            del self._deliveries[next(iter(self._deliveries))]

    def clear(self) -> None:
        """Drop all messages."""
        self.lost += len(self._queue)
        self._queue.clear()
        self._by_subject.clear()

    def _skip_outdated(self) -> None:
        ended = {item.subject[1]: index for index, (item, _) in enumerate(self._queue) if item.ends_verdicts}
        newer = Counter(self._by_subject)
        # The newest message about each subject before which nothing but outdated messages wait.
        candidates: dict[Subject, int] = {}
        for index, (item, _) in enumerate(self._queue):
            subject = item.subject
            newer[subject] -= 1
            if subject[0] == "verdict" and ended.get(subject[1], -1) > index:
                continue
            candidates[subject] = index
            if not newer[subject] and subject != HEARTBEAT:
                break
        chosen = min(candidates.values(), key=lambda index: self._deliveries.get(self._subject(index), 0))
        for _ in range(chosen):
            self._remove(0)
        self.lost += chosen

    def _drop_one(self) -> None:
        self.lost += 1
        oldest_verdict = None
        # The message just appended is never dropped.
        for index in range(len(self._queue) - 1):
            subject = self._subject(index)
            if self._by_subject[subject] > 1:
                self._remove(index)
                return
            if oldest_verdict is None and subject[0] == "verdict":
                oldest_verdict = index
        self._remove(oldest_verdict or 0)

    def _subject(self, index: int) -> Subject:
        return self._queue[index][0].subject

    def _remove(self, index: int) -> Item:
        item, _ = self._queue[index]
        del self._queue[index]
        self._by_subject[item.subject] -= 1
        if not self._by_subject[item.subject]:
            del self._by_subject[item.subject]
        return item


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """Frame of a stream as a binary message, which is encoded once for all clients.

    Args:
        stream: Name of the stream.
        width: Width that the clients requested, in pixels.
        pts_s: Media time of the frame in seconds.
        data: The binary message; see `encode_preview`.
    """

    stream: str
    width: int
    pts_s: float
    data: bytes


class PreviewQueue:
    """Queue of at most one frame per stream; a newer frame takes the place of the one that waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, EncodedPreview] = {}

    def push(self, preview: EncodedPreview) -> None:
        """Append a frame, or replace the waiting one of the same stream."""
        self._waiting[preview.stream] = preview

    def pop(self) -> EncodedPreview | None:
        """Remove and return the frame of the stream that has waited longest; None if the queue is empty."""
        stream = next(iter(self._waiting), None)
        return None if stream is None else self._waiting.pop(stream)
