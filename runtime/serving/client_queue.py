"""What waits for a client that reads slower than the program speaks: bounded, and the newest wins.

Pure: messages go in at one end and come out at the other; what gives way is decided here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

from runtime.messages import BroadcastDict


@dataclass(frozen=True, slots=True)
class EncodedMessage:
    """Holds a broadcast message with its JSON, which is made once for everyone.

    Args:
        message: The stamped message.
        data: Its JSON, one line in ASCII, without line break.
    """

    message: BroadcastDict
    data: bytes

    @property
    def seq(self) -> int:
        """Give the message's number."""
        return self.message["seq"]

    @property
    def topic(self) -> Hashable:
        """Give what the message is about: a newer one about the same supersedes it."""
        if self.message["type"] == "verdict":
            return ("verdict", self.message["stream"], self.message["face"])
        if self.message["type"] == "stream":
            return ("stream", self.message["stream"])
        return ("heartbeat",)


class OutboundQueue:
    """Queues parcels in order, at most `capacity` of them.

    When it is full, the oldest parcel that a newer one supersedes gives way. Where every parcel is about
    something else, the oldest verdict goes, and a stream's state only when nothing but states is left.

    Args:
        capacity: How many parcels may wait, at least 1.

    Raises:
        ValueError: The capacity is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a backlog must hold at least 1 message, not {capacity}")
        self.capacity = capacity
        self.lost = 0
        self._parcels: deque[EncodedMessage] = deque()
        self._waiting: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._parcels)

    def push(self, encoded: EncodedMessage) -> None:
        """Put a parcel at the end, whatever must give way for it."""
        self._parcels.append(encoded)
        self._waiting[encoded.topic] += 1
        if len(self._parcels) > self.capacity:
            self._give_way()
            self.lost += 1

    def pop(self) -> EncodedMessage | None:
        """Take the oldest parcel; None when nothing waits."""
        return self._take(0) if self._parcels else None

    def _give_way(self) -> None:
        oldest_verdict = None
        # The newest parcel is left out: it must get in even where it could be told from nothing else.
        for index in range(len(self._parcels) - 1):
            encoded = self._parcels[index]
            if self._waiting[encoded.topic] > 1:
                self._take(index)
                return
            if oldest_verdict is None and encoded.message["type"] == "verdict":
                oldest_verdict = index
        self._take(oldest_verdict or 0)

    def _take(self, index: int) -> EncodedMessage:
        encoded = self._parcels[index]
        del self._parcels[index]
        self._waiting[encoded.topic] -= 1
        if not self._waiting[encoded.topic]:
            del self._waiting[encoded.topic]
        return encoded
