"""Queue of samples between the reader's thread and the analysis: newest wins, or the reader waits.

The queue of a live source has room for two samples, because the analysis of a frame on which the face
detector runs can take longer than one sample interval, and that of the next frame takes less. A sample taken
from the queue is at most one sample older than the newest.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from streams.errors import EndOfStream

__all__ = ["FrameQueue"]

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Bounded queue of due samples between two threads.

    Args:
        newest_wins: Whether a new sample replaces the oldest one when the queue is full; otherwise `put`
            waits for room.
        room: Capacity; None for 2 if the newest wins, else 4.
    """

    def __init__(self, *, newest_wins: bool, room: int | None = None) -> None:
        self._newest_wins = newest_wins
        self._room = room or _room(newest_wins)
        self._samples: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cause: BaseException | None = None
        self._dropped = 0

    def set_newest_wins(self, newest_wins: bool) -> None:
        """Set whether a new sample replaces the oldest one when the queue is full; otherwise `put` waits."""
        with self._changed:
            if newest_wins != self._newest_wins:
                self._newest_wins, self._room = newest_wins, _room(newest_wins)
                self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """Return how many samples were replaced before they were taken."""
        return self._dropped

    def put(self, sample: T) -> None:
        """Add a sample, waiting for room unless the newest wins; a closed queue discards it."""
        with self._changed:
            if not self._newest_wins:
                self._changed.wait_for(lambda: self._closed or len(self._samples) < self._room)
            if self._closed:
                return
            self._samples.append(sample)
            if len(self._samples) > self._room:
                self._samples.popleft()
                self._dropped += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> T | None:
        """Take the oldest waiting sample.

        Args:
            timeout_s: Longest wait for a sample.

        Returns:
            The sample, or None after the timeout.

        Raises:
            EndOfStream: The queue is closed and empty; its cause is the error that closed it, if any.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._samples, timeout_s)
            if self._samples:
                sample = self._samples.popleft()
                self._changed.notify_all()
                return sample
            if self._closed:
                raise EndOfStream from self._cause
            return None

    def close(self, cause: BaseException | None = None, *, discard: bool = False) -> None:
        """Accept no more samples; waiting ones can still be taken.

        Args:
            cause: The error that ended the stream, if any.
            discard: Whether to discard the waiting samples.
        """
        with self._changed:
            if not self._closed:
                self._closed, self._cause = True, cause
            if discard:
                self._samples.clear()
            self._changed.notify_all()


def _room(newest_wins: bool) -> int:
    return 2 if newest_wins else 4
