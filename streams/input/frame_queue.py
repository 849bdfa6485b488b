"""Hands samples from the reader's thread to whoever analyses them: the newest win, or the reader waits.

Of a live source two wait: now and then a look for faces takes longer than from one sample to the next, and
the one after it makes up for that. What is taken is never older than the sample before the newest.

Where one sample was replaced, the samples around it still follow each other: a face that is not found once is
bridged in the same way. Two in a row are a gap, and so is one right after another, or a machine that manages
every second sample only would be judging at half the model's rate.
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
    """Holds due samples between two threads.

    Args:
        newest_wins: Whether samples that nobody took give way to new ones; otherwise `put` waits for room.
        step_s: Nominal interval between samples in seconds, to tell a gap among those that were taken.
        room: How many samples may wait; None for 2 where the newest win, and 4 where they do not.
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
        """Return how many samples gave way before anyone took them."""
        return self._dropped

    def put(self, frame: Frame) -> None:
        """Add a sample; where the newest do not win, wait for room. After `close` it is let go."""
        with self._changed:
            if not self._newest_wins:
                self._changed.wait_for(lambda: self._closed or len(self._frames) < self._room)
            if self._closed:
                return
            self._frames.append(frame)
            if len(self._frames) > self._room:
                lost, after = self._frames.popleft(), self._frames.popleft()
                # Whoever takes the next one has to know what is missing before it.
                after = replace(after, missed=lost.missed + 1, gap=lost.gap or after.gap)
                self._frames.appendleft(after)
                self._dropped += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Frame | None:
        """Take the oldest sample that waits.

        Args:
            timeout_s: How long to wait for one.

        Returns:
            The sample, or None if none came in time.

        Raises:
            EndOfStream: The mailbox is closed and empty; its cause is the error that closed it, if one did.
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
        return self._follow(frame)

    def _follow(self, frame: Frame) -> Frame:
        """Tell whether a frame follows the one that was taken before it."""
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
        """Let waiting samples be taken and nothing more be added.

        Args:
            cause: The error that ended the stream, if one did.
            discard: Whether to throw the waiting samples away.
        """
        with self._changed:
            if not self._closed:
                self._closed, self._cause = True, cause
            if discard:
                self._frames.clear()
            self._changed.notify_all()
