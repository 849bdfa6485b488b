"""Reads a source on a thread of its own and gives out the samples that are due.

    with open_reader(parse_source("rtsp://10.0.0.7/cam"), sample_hz=8, on_event=print) as reader:
        while True:
            if frame := reader.next(timeout_s=1.0):
                look_at(frame)

Of a live source the newest samples win: a slow consumer loses some and never sees an old one. A finite
source waits for its consumer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from streams.errors import EndOfStream, SourceError, SourceMissing, SourceNotVideo
from streams.input.capture.ffmpeg import DecodedFrame, Timeouts, open_capture
from streams.input.capture.rotation import UprightRotation
from streams.input.events import (
    Connected,
    Connecting,
    Disconnected,
    Ended,
    Event,
    Failed,
    FastEnough,
    TooSlow,
)
from streams.input.frame import Frame
from streams.input.frame_queue import FrameQueue
from streams.input.sampler import MAX_STEP, Sampler
from streams.input.source import Source

__all__ = [
    "Backoff",
    "Connected",
    "Connecting",
    "Disconnected",
    "EndOfStream",
    "Ended",
    "Event",
    "Failed",
    "FastEnough",
    "Reader",
    "Timeouts",
    "TooSlow",
    "open_reader",
]

_STOP_S = 1.8  # a little longer than the longest read timeout
_STOP_OPENING_S = 0.5  # an attempt to connect cannot be interrupted; its thread is left to end by itself


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt to connect.

    Args:
        first_s: The first wait; it doubles with every failure.
        most_s: The longest wait.
        jitter: The share of a wait that chance may take off, so that many readers do not come back at once.
    """

    first_s: float = 0.5
    max_s: float = 10.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.max_s:
            raise ValueError(f"first_s must be in (0, most_s], not {self.first_s}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], not {self.jitter}")

    def delay_s(self, failures: int, chance: float) -> float:
        """Return the wait after that many failures in a row.

        Args:
            failures: At least 1.
            chance: A random number in [0, 1).
        """
        doublings = min(failures - 1, 32)  # beyond any cap, and still a finite number
        return min(self.max_s, self.first_s * 2.0**doublings) * (1 - self.jitter * chance)


def open_reader(
    source: Source,
    *,
    sample_hz: float,
    on_event: Callable[[Event], None],
    timeouts: Timeouts | None = None,
    backoff: Backoff | None = None,
    retry: bool | None = None,
    wall: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
) -> Reader:
    """Make a reader; it starts on entering its context.

    Args:
        source: What to read.
        sample_hz: How many samples per second of media time are due.
        on_event: Called on the reader's thread with each event, in order.
        timeouts: How long the source may keep silent.
        backoff: How long to wait between attempts to connect.
        retry: Whether to connect again after a failure that may pass; None does so for live sources.
        wall: Unix seconds.
        clock: Seconds that never go back.

    Returns:
        The reader.
    """
    return Reader(
        source,
        sample_hz=sample_hz,
        on_event=on_event,
        timeouts=timeouts or Timeouts(),
        backoff=backoff or Backoff(),
        retry=source.live if retry is None else retry,
        wall=wall,
        clock=clock,
    )


class Reader:
    """A source being read; made by `open_reader`."""

    def __init__(
        self,
        source: Source,
        *,
        sample_hz: float,
        on_event: Callable[[Event], None],
        timeouts: Timeouts,
        backoff: Backoff,
        retry: bool,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.source = source
        self._sample_hz = sample_hz
        self._on_event = on_event
        self._timeouts = timeouts
        self._backoff = backoff
        self._retry = retry
        self._wall = wall
        self._clock = clock
        self._mailbox = FrameQueue(newest_wins=source.live, step_s=1 / sample_hz)
        self._stop = threading.Event()
        self._error: SourceError | None = None
        self._corrupt = 0
        self._failures = 0
        self._was_live = False
        self._opening = False
        self._stop_until_s = 0.0
        # A thread that hangs in a name lookup cannot be interrupted; a daemon does not hold up the exit.
        self._thread = threading.Thread(target=self._run, name=f"reader {source.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def dropped(self) -> int:
        """Return how many due samples of a live source nobody took in time."""
        return self._mailbox.dropped

    @property
    def corrupt(self) -> int:
        """Return how many pictures were lost because their data was damaged."""
        return self._corrupt

    @property
    def error(self) -> SourceError | None:
        """Return what ended the stream; None while it runs and after a regular end."""
        return self._error

    def next(self, timeout_s: float) -> Frame | None:
        """Take the next due sample: of a live source one of the newest two, of a finite one the next in line.

        Args:
            timeout_s: How long to wait for one.

        Returns:
            The sample, or None if none came in time.

        Raises:
            EndOfStream: The reader has ended, failed or been stopped; a failure is its cause.
        """
        return self._mailbox.take(timeout_s)

    def request_stop(self) -> None:
        """Ask the thread to end and return at once; `stop` waits for it."""
        if not self._stop.is_set():
            self._stop_until_s = time.monotonic() + (_STOP_OPENING_S if self._opening else _STOP_S)
        self._stop.set()
        self._mailbox.close(discard=True)

    def stop(self) -> None:
        """End the thread and wait for it, less than two seconds.

        A thread inside a connection attempt may outlive this: it says nothing any more and ends by itself.
        """
        self.request_stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, self._stop_until_s - time.monotonic()))

    def _tell(self, event: Event) -> None:
        if not self._stop.is_set():
            self._on_event(event)

    def _run(self) -> None:
        try:
            self._read()
        except Exception as failure:  # noqa: BLE001 - a fault of ours: it surfaces where the frames are taken
            self._mailbox.close(failure)

    def _read(self) -> None:
        while not self._stop.is_set():
            self._tell(Connecting(self._failures + 1))
            try:
                self._read_once()
            except SourceError as error:
                self._failures += 1
                if not self._worth_retrying(error):
                    self._finish(Failed(error), error)
                    return
                delay_s = self._backoff.delay_s(self._failures, random.random())
                self._tell(Disconnected(error, delay_s))
                self._stop.wait(delay_s)
            else:
                self._finish(Ended(), None)
                return

    def _worth_retrying(self, error: SourceError) -> bool:
        if not self._retry:
            return False
        # A camera that was there may be plugged in again, and a server may be up before its streams: what is
        # permanent for a newcomer passes. Not so refused credentials, and repeating them can lock an account.
        returning = self._was_live and isinstance(error, SourceMissing | SourceNotVideo)
        return returning or not error.permanent

    def _finish(self, event: Ended | Failed, error: SourceError | None) -> None:
        self._error = error
        self._mailbox.close(error)
        self._tell(event)

    def _read_once(self) -> None:
        self._opening = True
        try:
            capture = open_capture(self.source, timeouts=self._timeouts, stop=self._stop, clock=self._clock)
        finally:
            self._opening = False
        lost_before = self._corrupt
        sampler = Sampler(self._sample_hz, fps=capture.fps)
        upright = UprightRotation()
        connected = too_slow = False
        try:
            for picture in capture.frames():
                self._corrupt = lost_before + capture.corrupt
                if not connected:
                    connected = self._was_live = True
                    self._failures = 0
                    self._tell(Connected(picture.image.width, picture.image.height, capture.fps))
                sample = sampler.offer(float(picture.pts * picture.time_base))
                if sampler.too_slow != too_slow:
                    too_slow = sampler.too_slow
                    fps = sampler.fps or 0.0
                    needed_hz = self._sample_hz / MAX_STEP
                    self._tell(TooSlow(fps, needed_hz) if too_slow else FastEnough(fps))
                if sample:
                    self._mailbox.put(self._frame(picture, upright, gap=sample.gap))
                if self._stop.is_set():
                    return
        finally:
            self._corrupt = lost_before + capture.corrupt
            capture.close()
        if not connected and not self._stop.is_set():
            raise SourceNotVideo(self.source.spec, "no picture in it can be decoded")

    def _frame(self, picture: DecodedFrame, upright: UprightRotation, *, gap: bool) -> Frame:
        captured = None
        if picture.captured_s is not None:
            # By way of the clock: a correction of the wall clock must not look like a latency.
            captured = self._wall() - (self._clock() - picture.captured_s)
        return Frame(
            image=upright.turn(picture.image),
            pts=picture.pts,
            time_base=picture.time_base,
            captured=captured,
            decode_ms=picture.decode_ms,
            missed=0,
            gap=gap,
        )
