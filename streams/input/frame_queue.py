"""Queue of samples between the reader's thread and the analysis.

A finite source waits for room. Samples of a live source wait for at most `MAX_WAIT_S`. If the analysis is so
slow that thinning the samples (`streams.input.sampler`) is not enough, all of them but the newest are then
dropped at once. The samples between two such losses follow each other; dropping them one by one would break
every window.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from streams.errors import EndOfStream

__all__ = ["MAX_WAIT_S", "FrameQueue"]

MAX_WAIT_S = 1.0
"""Longest time in seconds that a sample of a live source waits.

It sets the slowest analysis that still gives verdicts. With 5 samples per second, the bundled model's
shortest window of 5 samples is complete if a sample takes less than 0.4 s.
"""

_LATE_S = 0.03  # a sample that waits less is not late
_ROOM = 4  # for a finite source
# The analysis of a frame on which the face detector runs may take longer than a sample interval; the next
# frames take less.
_WAITING_BEHIND = 2

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Bounded queue of due samples between two threads.

    Args:
        drops_late: Whether samples that have waited too long are dropped; otherwise `put` waits for room.
        clock: Monotonic clock in seconds.
    """

    def __init__(self, *, drops_late: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._drops_late = drops_late
        self._clock = clock
        self._samples: deque[tuple[float, T]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cause: BaseException | None = None
        self._dropped = 0
        self._behind = False
        self._late = False

    def set_drops_late(self, drops_late: bool) -> None:
        """Set whether samples that have waited too long are dropped; otherwise `put` waits for room."""
        with self._changed:
            self._drops_late = drops_late
            self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """Return how many samples were dropped before they were taken."""
        return self._dropped

    @property
    def late(self) -> bool:
        """Return whether the sample last taken, of a live source, had to wait for the analysis."""
        return self._late

    @property
    def behind(self) -> bool:
        """Return whether a live source should send a sample later: the analysis is behind, and samples wait.

        It is behind once two samples wait, until it waits for a sample.
        """
        return self._drops_late and self._behind and bool(self._samples)

    def put(self, sample: T) -> None:
        """Add a sample, waiting for room unless the source is live; a closed queue discards it."""
        with self._changed:
            if not self._drops_late:
                self._changed.wait_for(lambda: self._closed or len(self._samples) < _ROOM)
            if self._closed:
                return
            self._samples.append((self._clock(), sample))
            self._behind = self._behind or len(self._samples) >= _WAITING_BEHIND
            self._drop_late()
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
            if not self._samples:
                self._behind = False
            self._changed.wait_for(lambda: self._closed or self._samples, timeout_s)
            if self._samples:
                self._drop_late()
                put_s, sample = self._samples.popleft()
                self._late = self._drops_late and self._clock() - put_s > _LATE_S
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

    def _drop_late(self) -> None:
        """Drop all samples but the newest if the oldest has waited too long; lock held."""
        if self._drops_late and self._clock() - self._samples[0][0] > MAX_WAIT_S:
            self._dropped += len(self._samples) - 1
            self._samples = deque([self._samples[-1]])
