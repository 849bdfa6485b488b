"""Reader of a source on a thread of its own: connects, decodes, and queues the samples that are due.

    with open_reader(parse_source("rtsp://10.0.0.7/cam"), sample_hz=8, on_event=print) as reader:
        while True:
            if frame := reader.next(timeout_s=1.0):
                analyse(frame)

While the consumer of a live source is slow, fewer frames are due, at intervals that a window accepts. If that
is not enough, samples that have waited too long are dropped: the consumer never gets an old one.
A finite source waits for its consumer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import av

from streams.errors import SourceError, SourceMissing, SourceNotVideo, SourceUnavailable, SourceWaiting
from streams.input.capture.delivery import Delivery, PacketHistory
from streams.input.capture.display_transform import DisplayTransform
from streams.input.capture.factory import open_capture
from streams.input.capture.interface import Capture, DecodedFrame, Timeouts
from streams.input.clips.packet_ring import PacketRing, RingLimits
from streams.input.continuity import Continuity, Origin, Spacing
from streams.input.events import (
    Connected,
    Connecting,
    Disconnected,
    Ended,
    Event,
    Failed,
    FastEnough,
    NotAccelerated,
    TooSlow,
    WrongClock,
)
from streams.input.frame import Frame, PrecedingFrames
from streams.input.frame_queue import FrameQueue
from streams.input.losses import Losses, LossMeter
from streams.input.sampler import ThinnedSampler
from streams.input.source import Source

__all__ = ["Backoff", "Reader", "open_reader"]

_STOP_S = 1.8  # a little longer than the longest read timeout
_STOP_OPENING_S = 0.5  # a connection attempt cannot be interrupted, so its thread is not waited for


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waiting times between attempts to connect.

    Args:
        first_s: First wait; it doubles with every failure.
        max_s: Longest wait.
        jitter: Largest share of a wait that is subtracted at random, so that many readers do not reconnect at
            the same time.

    Raises:
        ValueError: A value is out of its range.
    """

    first_s: float = 0.5
    max_s: float = 10.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.max_s:
            raise ValueError(f"first_s must be in (0, max_s], not {self.first_s}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], not {self.jitter}")

    def delay_s(self, failures: int, chance: float) -> float:
        """Return the wait after a number of consecutive failures.

        Args:
            failures: At least 1.
            chance: A random number in [0, 1).
        """
        doublings = min(failures - 1, 32)  # enough for any max_s, without an overflow
        return min(self.max_s, self.first_s * 2.0**doublings) * (1 - self.jitter * chance)


def open_reader(
    source: Source,
    *,
    sample_hz: float,
    on_event: Callable[[Event], None],
    timeouts: Timeouts | None = None,
    backoff: Backoff | None = None,
    retry: bool | None = None,
    keep: RingLimits | None = None,
    wall: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
) -> Reader:
    """Create a reader; it starts when its context is entered.

    Args:
        source: Source to read.
        sample_hz: Due samples per second of media time.
        on_event: Called on the reader's thread with each event, in order.
        timeouts: Longest silence of the source.
        backoff: Waiting times between attempts to connect.
        retry: Whether to reconnect after a temporary failure; None to do so unless the source has an end.
        keep: Limits of `Reader.packets`; None to keep no packets.
        wall: Clock in Unix seconds.
        clock: Monotonic clock in seconds.

    Returns:
        The reader, not yet started.
    """
    return Reader(
        source,
        sample_hz=sample_hz,
        on_event=on_event,
        timeouts=timeouts or Timeouts(),
        backoff=backoff or Backoff(),
        retry=retry,
        keep=keep,
        wall=wall,
        clock=clock,
    )


class Reader:
    """Running reader of one source; created by `open_reader`."""

    def __init__(
        self,
        source: Source,
        *,
        sample_hz: float,
        on_event: Callable[[Event], None],
        timeouts: Timeouts,
        backoff: Backoff,
        retry: bool | None,
        keep: RingLimits | None,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.source = source
        self._sample_hz = sample_hz
        self._on_event = on_event
        self._timeouts = timeouts
        self._backoff = backoff
        self._retry = retry
        self._keep = keep
        self.packets: PacketRing | None = None
        """Newest packets of the present connection, for clips; None if they are not kept."""
        self._wall = wall
        self._clock = clock
        self._queue: FrameQueue[tuple[Frame, Origin]] = FrameQueue(
            drops_late=source.live is not False, clock=clock
        )
        self._continuity = Continuity(sample_hz)  # used by the consumer's thread only
        self._loss_meter = LossMeter(sample_hz)
        self._refused = 0
        self._thinned = 0
        self._sampled_s = 0.0
        self._delivery: Delivery | None = None
        self._history = PacketHistory()
        self._stop = threading.Event()
        self._error: SourceError | None = None
        self._corrupt = 0
        self._failures = 0
        self._connections = 0
        self._opening = False
        self._stop_until_s = 0.0
        # A daemon, because a thread that hangs in a name lookup cannot be interrupted and would delay exit.
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
    def real_time(self) -> bool:
        """Return whether frames arrive as they are captured; until the source is open, whether it is live."""
        return self.source.live is True if self._delivery is None else self._delivery.real_time

    @property
    def finite(self) -> bool:
        """Return whether the source has an end; until it is open, whether it is a file."""
        return self.source.live is False if self._delivery is None else self._delivery.finite

    @property
    def losses(self) -> Losses:
        """Return how many due samples were not analysed, by cause."""
        return Losses(
            queue=self._queue.dropped + self._thinned,
            skipped=self._loss_meter.skipped,
            corrupt=self._loss_meter.corrupt,
            refused=self._refused,
        )

    @property
    def corrupt(self) -> int:
        """Return how many frames were lost because of damaged data."""
        return self._corrupt

    @property
    def error(self) -> SourceError | None:
        """Return the error that ended the stream; None while it runs and after a regular end."""
        return self._error

    def next(self, timeout_s: float) -> Frame | None:
        """Take the next due sample: of a live source, one that has not waited for too long.

        Args:
            timeout_s: Longest wait for a sample.

        Returns:
            The sample, or None after the timeout.

        Raises:
            EndOfStream: The reader has ended, failed or been stopped; a failure is its cause.
        """
        taken = self._queue.take(timeout_s)
        if taken is None:
            return None
        frame, origin = taken
        segment = self._continuity.deliver(frame.pts_s, origin)
        return replace(frame, segment=segment, late=self._queue.late)

    def refuse(self) -> None:
        """Count the sample last taken as lost, because its consumer did not analyse it."""
        self._refused += 1
        self._continuity.refuse()

    def request_stop(self) -> None:
        """Ask the thread to end and return at once; `stop` waits for it."""
        if not self._stop.is_set():
            self._stop_until_s = time.monotonic() + (_STOP_OPENING_S if self._opening else _STOP_S)
        self._stop.set()
        self._queue.close(discard=True)

    def stop(self) -> None:
        """Stop the thread and wait for it, for less than two seconds.

        A thread inside a connection attempt may continue after that; it reports nothing more and ends by
        itself.
        """
        self.request_stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, self._stop_until_s - time.monotonic()))

    def _emit(self, event: Event) -> None:
        if not self._stop.is_set():
            self._on_event(event)

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as failure:  # noqa: BLE001 - a bug or a failing callback; raised where frames are taken
            self._queue.close(failure)

    def _read(self) -> None:
        while not self._stop.is_set():
            self._emit(Connecting(self._failures + 1))
            try:
                self._read_connection()
            except SourceError as error:
                self._failures += 1
                if not self._may_retry(error):
                    self._finish(Failed(error), error)
                    return
                delay_s = self._delay_s(error)
                self._emit(Disconnected(error, delay_s))
                self._stop.wait(delay_s)
            else:
                self._finish(Ended(), None)
                return

    def _delay_s(self, error: SourceError) -> float:
        """Return the wait after a failure."""
        if not self.source.listens:
            return self._backoff.delay_s(self._failures, random.random())
        # While a listening source waits, senders are refused. What a sender does must not lengthen the wait.
        left = self._failures == 1 and self._connections > 0
        return 0.0 if left or isinstance(error, SourceWaiting) else self._backoff.first_s

    def _may_retry(self, error: SourceError) -> bool:
        if self.finite if self._retry is None else not self._retry:
            return False
        if self.source.kind == "pipe":
            return False  # it cannot be opened again
        # After a successful connection a missing camera may be plugged in again, and a server may start
        # before its streams. Refused credentials are never retried, because that can lock an account.
        known = self._connections > 0 or self.source.listens
        returning = known and isinstance(error, SourceMissing | SourceNotVideo)
        return returning or not error.permanent

    def _finish(self, event: Ended | Failed, error: SourceError | None) -> None:
        self._error = error
        self._queue.close(error)
        self._emit(event)

    def _read_connection(self) -> None:
        """Open the source and read it until it ends, fails or is stopped."""
        self._opening = True
        # One ring for each connection: clips of the last one may still be cut from the old ring.
        packets = None if self._keep is None else PacketRing(self._keep)
        try:
            capture = open_capture(
                self.source,
                timeouts=self._timeouts,
                stop=self._stop,
                clock=self._clock,
                history=self._history,
                packets=packets,
            )
            self.packets = packets
        finally:
            self._opening = False
        try:
            self._read_capture(capture)
        finally:
            capture.close()

    def _read_capture(self, capture: Capture) -> None:
        if self._delivery is not None and capture.delivery.finite and not self._delivery.finite:
            # The remaining segments of a broadcast that has ended must not be played like a file.
            raise SourceUnavailable(self.source.spec, "the broadcast has ended", "start it again")
        self._delivery = capture.delivery
        self._queue.set_drops_late(capture.delivery.real_time)
        sampler = ThinnedSampler(self._sample_hz, fps=capture.fps)
        transform, preceding = DisplayTransform(), PrecedingFrames()
        corrupt_before, thinned_before = self._corrupt, self._thinned
        connected = False
        wrong_clock: str | None = None
        try:
            for decoded in capture.frames():
                self._corrupt = corrupt_before + capture.corrupt
                if not connected:
                    connected = True
                    self._connections += 1
                    self._failures = 0
                    self._emit(Connected(decoded.image.width, decoded.image.height, capture.fps))
                    if self.source.hwaccel and capture.not_accelerated:
                        self._emit(NotAccelerated(self.source.hwaccel, capture.not_accelerated))
                if capture.wrong_clock != wrong_clock:
                    wrong_clock = capture.wrong_clock
                    sampler.restart()
                    self._emit(WrongClock(wrong_clock or ""))
                self._offer(decoded, capture, sampler, transform, preceding)
                self._thinned = thinned_before + sampler.thinned
                if self._stop.is_set():
                    return
        finally:
            self._corrupt = corrupt_before + capture.corrupt
            if capture.delivery.real_time:
                elapsed_s = self._clock() - self._sampled_s
                self._loss_meter.ended(elapsed_s, skipped=capture.skipped, corrupt=capture.corrupt)
        if not connected and not self._stop.is_set():
            raise SourceNotVideo(self.source.spec, "no frame in it can be decoded")

    def _offer(
        self,
        decoded: DecodedFrame,
        capture: Capture,
        sampler: ThinnedSampler,
        transform: DisplayTransform,
        preceding: PrecedingFrames,
    ) -> None:
        """Queue a decoded frame if it is due, and report a change of `too_slow`."""
        was_too_slow = sampler.too_slow
        time_s = float(decoded.pts * decoded.time_base)
        chosen = sampler.offer(time_s, behind=self._queue.behind)
        if sampler.too_slow != was_too_slow:
            fps = sampler.fps or 0.0
            min_fps = Spacing(self._sample_hz).min_fps
            self._emit(FastEnough(fps) if was_too_slow else TooSlow(fps, min_fps))
        if sampler.due:
            self._sampled_s = self._clock()
            self._loss_meter.sampled(
                time_s,
                connection=self._connections,
                timeline=sampler.timeline,
                skipped=capture.skipped,
                corrupt=capture.corrupt,
            )
        image, geometry = transform.apply(decoded.image, decoded.pixel_aspect)
        earlier = preceding.before(image, time_s) if chosen else ()
        preceding.add(image, time_s)
        if not chosen:
            return
        origin = Origin(
            connection=self._connections,
            timeline=sampler.timeline,
            recoveries=sampler.recoveries,
            geometry=geometry,
        )
        self._queue.put((self._frame(decoded, image, earlier), origin))

    def _frame(
        self, decoded: DecodedFrame, image: av.VideoFrame, earlier: tuple[av.VideoFrame, ...]
    ) -> Frame:
        captured = None
        if decoded.captured_s is not None:
            # Converted by way of the monotonic clock: a correction of the wall clock is not latency.
            captured = self._wall() - (self._clock() - decoded.captured_s)
        return Frame(
            image=image,
            pts=decoded.pts,
            time_base=decoded.time_base,
            captured=captured,
            decode_ms=decoded.decode_ms,
            connection=self._connections,
            segment=0,  # set when the frame is taken
            earlier=earlier,
        )
