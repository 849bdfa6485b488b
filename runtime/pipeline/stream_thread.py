"""Thread of one live stream: reads and analyses its frames, publishes its verdicts and its state."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.messages import HEARTBEAT_S, BroadcastMessage, StreamHealth, Thresholds, VerdictMessage
from runtime.model.calibration import Calibration
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from runtime.pipeline.stream_state import Messages, RestartPolicy, StreamStateMachine, stall_timeout_s
from streams.errors import EndOfStream, SourceError
from streams.input.capture.interface import Timeouts
from streams.input.clips.packet_ring import PacketRing, RingLimits
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
from streams.input.frame import Frame
from streams.input.losses import Losses
from streams.input.reader import Backoff, Reader, open_reader
from streams.input.source import Source

logger = logging.getLogger(__name__)

TICK_S = 0.1
# Longest wait for a frame before the thread checks whether it should stop.
FRAME_TIMEOUT_S = 0.2
# When playback of a file is later than this, the schedule is shifted instead of playing faster to catch up.
MAX_LAG_S = 1.0


@dataclass(frozen=True, kw_only=True)
class MonitorTiming:
    """Timeouts, intervals and clock of a monitor; the defaults suit real cameras.

    Args:
        timeouts: Limits on opening and reading a source.
        backoff: Delays between attempts to reconnect.
        heartbeat_s: Seconds between heartbeats.
        tick_s: Seconds between checks for stalled streams.
        clock: Monotonic clock in seconds.

    Raises:
        ValueError: An interval is not positive.
    """

    timeouts: Timeouts = Timeouts()  # noqa: RUF009  frozen
    # Less than the default: a viewer should not wait 10 s and more for a camera that is back already.
    backoff: Backoff = Backoff(max_s=5.0)  # noqa: RUF009  frozen
    heartbeat_s: float = HEARTBEAT_S
    tick_s: float = TICK_S
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.heartbeat_s <= 0 or self.tick_s <= 0:
            raise ValueError(f"heartbeat_s and tick_s must be above 0, not {self.heartbeat_s}, {self.tick_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredFrame:
    """Frame that was analysed, with the verdicts that were published about it.

    Args:
        stream: Name of the stream.
        frame: The frame.
        verdicts: Verdicts on the faces in the frame; empty if there is none.
        crops: Scored crop of each face, uint8 RGB `(size, size, 3)`, by the id in its verdict.
        packets: Newest packets of the source; None if they are not kept.
        calibration: Thresholds with which the verdicts were made; None if unknown.
    """

    stream: str
    frame: Frame
    verdicts: tuple[VerdictMessage, ...]
    crops: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    packets: PacketRing | None = None
    calibration: Calibration | None = None


FrameSink = Callable[[ScoredFrame], None]
"""Function that receives each frame about which verdicts were published, or which has no face. Called on the
stream's thread; it must return at once and must not raise."""


class StreamThread:
    """Thread that reads and analyses one source, restarts after errors, and records how it ended.

    An unexpected error affects this stream only: the stream becomes `offline`, the error is logged with its
    traceback, and the stream restarts. A failure of the engine, which all streams share, ends the thread.

    Args:
        source: Source to read; its name is the stream's name in messages.
        sample_hz: Sample rate of the model.
        new_analysis: Factory of the stream's analysis, called on the thread at the start and each restart.
        publish: Function that sends a message; called from several threads, one message at a time.
        on_change: Called from any thread when `settled` or `finished` has changed.
        timing: Timeouts, intervals and clock.
        on_frame: Receives each scored frame, after its verdicts were published.
        keep: Limits of the packets that scored frames refer to; None to keep none.
        thresholds: Thresholds of its analysis, to be published; None for those of the program.
    """

    def __init__(
        self,
        source: Source,
        *,
        sample_hz: float,
        new_analysis: Callable[[], StreamAnalysis],
        publish: Callable[[BroadcastMessage], object],
        on_change: Callable[[], None],
        timing: MonitorTiming,
        on_frame: FrameSink = lambda scored: None,
        keep: RingLimits | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.source = source
        self.settled = False
        """Whether the first attempt to open the source has succeeded or failed."""
        self.finished = False
        """Whether the thread has ended: the source ended or failed, or the engine failed."""
        self.failed = False
        """Whether the stream could not be read or analysed, and will not be tried again."""
        self._not_accelerated = ""
        self.engine_failure: BaseException | None = None
        """Error of the engine that all streams share."""
        self.thread = threading.Thread(target=self._run, name=f"analysis {source.name}", daemon=True)
        self._sample_hz = sample_hz
        self._new_analysis = new_analysis
        self._publish = publish
        self._on_change = on_change
        self._stopping = threading.Event()
        self._removed = False
        self._timing = timing
        self._on_frame = on_frame
        self._keep = keep
        self._state = StreamStateMachine(
            source.name, stall_timeout_s=stall_timeout_s(sample_hz), thresholds=thresholds
        )
        # Held from the decision on messages until they are published, which keeps them in order.
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._analysis: StreamAnalysis | None = None
        self._restarts = RestartPolicy(source, timing.backoff)
        # Carried over from the runs before a restart: losses, and the highest face id.
        self._past_losses = Losses()
        self._past_faces = self._max_face = 0
        self._tick_failed = False
        self._analysing_since: float | None = None

    def publish_state(self) -> None:
        """Publish the stream's present state."""
        self._send(self._state.current)

    def tick(self) -> None:
        """Publish that the stream has stalled, if it has; an unexpected error is logged once."""
        try:
            self._send(
                lambda: self._state.tick(
                    self._timing.clock(), analysing_since=self._analysing_since, losses=self._losses()
                )
            )
        except Exception:
            if not self._tick_failed:
                self._tick_failed = True
                logger.exception("%s: internal error", self.source.name)

    def health(self) -> StreamHealth:
        """Return the stream's counters."""
        with self._lock:
            return self._state.health(self._losses())

    def _losses(self) -> Losses:
        reader = self._reader
        return self._past_losses + (Losses() if reader is None else reader.losses)

    def remove(self) -> None:
        """Publish that the stream is no longer watched, publish nothing else about it, and end the thread."""
        self._send(lambda: self._state.removed("no longer watched"))
        with self._lock:
            self._removed = True
        self.request_stop()

    def rename(self, name: str) -> None:
        """Continue under another name, without an interruption.

        Args:
            name: The new name, not that of another stream.
        """

        def decide() -> Messages:
            self.source = replace(self.source, name=name)
            return self._state.renamed(self.source.name)

        self._send(decide)

    def request_stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._stopping.set()
        if self._reader is not None:
            self._reader.request_stop()

    def _send(self, decide: Callable[[], Messages]) -> Messages:
        """Publish the messages of a decision, and return them."""
        with self._lock:
            messages = [] if self._removed else decide()
            for message in messages:
                self._publish(message)
            return messages

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                started_s = self._timing.clock()
                try:
                    self._read_and_analyse()
                    break
                except BaseException as error:  # noqa: BLE001  whatever it is, the other streams continue
                    if self._stopping.is_set() or not self._restart(error, started_s):
                        break
        except Exception:
            # Not even the failure can be handled, such as when nothing can be published.
            self.failed = True
            logger.exception("%s: internal error, not trying again", self.source.name)
        finally:
            self.finished = True
            self._on_change()

    def _restart(self, error: BaseException, started_s: float) -> bool:
        """Handle an unexpected error; return whether to start again, after the delay."""
        try:
            if self._analysis is not None:
                self._analysis.check_engine()
        except BaseException as engine_failure:  # noqa: BLE001  raised by the main thread
            self.engine_failure = engine_failure
            return False
        ran_s = self._timing.clock() - started_s
        restart = self._restarts.failed(error, ran_s=ran_s, finite=self._is_finite(), chance=random.random())
        logger.error("%s", restart.log)
        self._carry_over()
        self._send(lambda: self._state.restarting(restart.reason))
        self._settle()
        if restart.delay_s is None:
            self.failed = True
            return False
        return not self._stopping.wait(restart.delay_s)

    def _is_finite(self) -> bool:
        return self.source.live is False if self._reader is None else self._reader.finite

    def _carry_over(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._past_losses += self._reader.losses
                self._reader = None
            self._past_faces = self._max_face

    def _read_and_analyse(self) -> None:
        analysis = self._analysis = self._new_analysis()
        playback = Playback()
        segment = 0
        with open_reader(
            self.source,
            sample_hz=self._sample_hz,
            on_event=self._on_event,
            timeouts=self._timing.timeouts,
            backoff=self._timing.backoff,
            keep=self._keep,
        ) as reader:
            self._reader = reader
            while not self._stopping.is_set():
                try:
                    # Returns at once when the monitor stops, whatever the timeout.
                    frame = reader.next(timeout_s=FRAME_TIMEOUT_S)
                except EndOfStream as end:
                    if not self._stopping.is_set():
                        self._end(end.__cause__)
                    return
                if frame is None:
                    continue
                if not reader.real_time:
                    restart, segment = frame.segment != segment, frame.segment
                    delay_s = playback.delay_s(frame.pts_s, self._timing.clock(), restart=restart)
                    self._stopping.wait(delay_s)
                if self._state.accepts(frame.connection):
                    self._analyse(analysis, frame)
                else:
                    reader.refuse()

    def _analyse(self, analysis: StreamAnalysis, frame: Frame) -> None:
        started = self._analysing_since = self._timing.clock()
        try:
            verdicts = analysis.analyse(frame)
        finally:
            self._analysing_since = None

        scored = False

        def decide() -> Messages:
            nonlocal scored
            # Checked again under the lock: the source may have been lost during the analysis.
            if not self._state.accepts(frame.connection) or self._stopping.is_set():
                return []
            if analysis.repeated:
                self._state.frame_repeated(started, losses=self._losses())
                return []
            scored = True
            return self._state.frame_analysed(
                [self._message(verdict) for verdict in verdicts],
                faces=len(analysis.faces),
                now=started,
                done=self._timing.clock(),
                losses=self._losses(),
                waiting=analysis.waiting,
            )

        published = self._send(decide)
        if scored:
            self._pass_on(frame, published, faces=len(analysis.faces))

    def _pass_on(self, frame: Frame, published: Messages, *, faces: int) -> None:
        """Pass a frame on with its verdicts; not one with faces for which no verdict was due."""
        verdicts = tuple(
            message
            for message in published
            if isinstance(message, VerdictMessage) and message.state != "stale"
        )
        if verdicts or not faces:
            reader, analysis = self._reader, self._analysis
            crops = {} if analysis is None else analysis.crops
            scored = ScoredFrame(
                stream=self.source.name,
                frame=frame,
                verdicts=verdicts,
                crops={self._past_faces + face: crop for face, crop in crops.items()},
                packets=None if reader is None else reader.packets,
                calibration=None if analysis is None else analysis.calibration,
            )
            self._on_frame(scored)

    def _message(self, verdict: FaceVerdict) -> VerdictMessage:
        # Ids are never reused, but the analysis counts from 1 after a restart.
        self._max_face = max(self._max_face, self._past_faces + verdict.face)
        return msgspec.structs.replace(
            verdict.message(self.source.name), face=self._past_faces + verdict.face
        )

    def _on_event(self, event: Event) -> None:
        """Handle an event of the reader, on the reader's thread."""
        match event:
            case Connected():
                if self._state.state == "offline":
                    logger.info("%s: connected again", self.source.name)
                self._send(self._state.connected)
            case NotAccelerated(hwaccel=hwaccel, reason=reason):
                # Logged once, not at every connection.
                if reason != self._not_accelerated:
                    self._not_accelerated = reason
                    logger.warning("%s: decoded by the CPU, not by %s: %s", self.source.name, hwaccel, reason)
            case Disconnected(error=error):
                # Logged once per outage, not once per attempt.
                if self._state.state != "offline":
                    logger.warning("%s; trying again until it is back", error)
                self._send(lambda: self._state.disconnected(error.reason))
            case TooSlow(fps=fps, needed_hz=needed_hz):
                self._send(lambda: self._state.too_slow(fps, needed_hz))
            case FastEnough():
                self._send(self._state.fast_enough)
            case WrongClock(reason=reason):
                logger.warning("%s: %s; arrival times are used instead", self.source.name, reason)
                self._send(lambda: self._state.wrong_clock(reason))
            case Connecting() | Ended() | Failed():
                # Frames read before the end are still to be analysed; `EndOfStream` comes after them.
                return
        self._settle()

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._on_change()

    def _end(self, cause: BaseException | None) -> None:
        """Handle the end of the frames, with the error that caused it, if any."""
        match cause:
            case None:
                self._send(self._state.ended)
            case SourceError():
                self.failed = True
                logger.error("%s", cause)
                self._send(lambda: self._state.failed(cause.reason))
            case _:
                raise cause


class Playback:
    """Schedule of a file that is played at the rate of its time stamps, as a camera would deliver it."""

    def __init__(self) -> None:
        self._start: float | None = None

    def delay_s(self, pts_s: float, now: float, *, restart: bool) -> float:
        """Return the seconds from now until a sample is due, at least 0.

        Args:
            pts_s: Media time of the sample in seconds.
            now: Present time in seconds.
            restart: Whether the media time may have jumped; the sample is then due at once.
        """
        if self._start is None or restart or now - self._start - pts_s > MAX_LAG_S:
            self._start = now - pts_s
        return max(0.0, self._start + pts_s - now)
