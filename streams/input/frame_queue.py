"""Queue of samples between the reader's thread and the analysis: newest wins, or the reader waits.

The queue of a live source has room for two samples. A detection now and then takes longer than one sample
interval, and the next frame makes up for it. A sample taken from the queue is therefore at most one sample
older than the newest.

A single lost sample is bridged: the samples around it still follow each other, as they do when a face is
missed once. Two lost samples in a row are a gap. A second loss directly after a bridged one is a gap too;
otherwise a machine that manages only every second sample would be scored at half the model's sample rate.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from streams.errors import EndOfStream
from streams.input.frame import Frame
from streams.input.sampler import MAX_STEP

__all__ = ["FrameQueue"]


class FrameQueue:
    """Bounded queue of due samples between two threads.

    Args:
        newest_wins: Whether a new sample replaces the oldest one when the queue is full; otherwise `put`
            waits for room.
        step_s: Nominal interval between samples in seconds, to detect gaps between the samples taken.
        room: Capacity; None for 2 if the newest wins, else 4.
    """

    def __init__(self, *, newest_wins: bool, step_s: float, room: int | None = None) -> None:
        self._newest_wins = newest_wins
        self._step_s = step_s
        self._room = room or (2 if newest_wins else 4)
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cause: Exception | None = None
        self._taken_s: float | None = None
        self._bridged = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Return how many samples were replaced before they were taken."""
        return self._dropped

    def put(self, frame: Frame) -> None:
        """Add a sample, waiting for room unless the newest wins; a closed queue discards it."""
        with self._changed:
            if not self._newest_wins:
                self._changed.wait_for(lambda: self._closed or len(self._frames) < self._room)
            if self._closed:
                return
            self._frames.append(frame)
            if len(self._frames) > self._room:
                lost, following = self._frames.popleft(), self._frames.popleft()
                # The next sample carries the record of what was lost before it.
                following = replace(following, missed=lost.missed + 1, gap=lost.gap or following.gap)
                self._frames.appendleft(following)
                self._dropped += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Frame | None:
        """Take the oldest waiting sample.

        Args:
            timeout_s: Longest wait for a sample.

        Returns:
            The sample, or None after the timeout.

        Raises:
            EndOfStream: The queue is closed and empty; its cause is the error that closed it, if any.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._frames, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
            elif self._closed:
                raise EndOfStream from self._cause
            else:
                return None
        return self._with_gap(frame)

    def _with_gap(self, frame: Frame) -> Frame:
        """Set `gap` on a frame that does not continue the one taken before it."""
        long = False
        if self._taken_s is not None and not frame.gap:
            steps = (frame.pts_s - self._taken_s) / self._step_s - 1e-6
            long = steps > MAX_STEP
            if long and (frame.missed != 1 or self._bridged or steps > MAX_STEP + 1):
                frame = replace(frame, gap=True)
        self._bridged = long and not frame.gap
        self._taken_s = frame.pts_s
        return frame

    def close(self, cause: Exception | None = None, *, discard: bool = False) -> None:
        """Accept no more samples; waiting ones can still be taken.

        Args:
            cause: The error that ended the stream, if any.
            discard: Whether to discard the waiting samples.
        """
        with self._changed:
            if not self._closed:
                self._closed, self._cause = True, cause
            if discard:
                self._frames.clear()
            self._changed.notify_all()
