"""Several live sources in one process, each analysed on its own thread and told about as it changes.

    with Monitor(sources, sample_hz=8.0, analysis_of=new_analysis, publish=hub.publish) as monitor:
        monitor.wait()

Per source two threads: the reader's, which receives and decodes, and one that analyses what the reader holds
ready. One more ticks for all: it makes verdicts stale when frames stop, since no frame would come to say so,
and sends the heartbeat.

A file is played at the pace of its own time, as a camera that films it would give it, but no sample of it is
dropped: if the machine falls behind, so does the file. Its end is the end of the stream.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from runtime.messages import HEARTBEAT_S, BroadcastMessage, HeartbeatMessage, StreamHealth
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_state import Messages, StreamStateMachine
from streams.errors import EndOfStream, SourceError
from streams.input.frame import Frame
from streams.input.reader import (
    Backoff,
    Connected,
    Connecting,
    Disconnected,
    Ended,
    Event,
    Failed,
    FastEnough,
    Reader,
    Timeouts,
    TooSlow,
    open_reader,
)
from streams.input.source import Source

logger = logging.getLogger(__name__)

TICK_S = 0.1
# How long to wait for a frame before looking whether a source that was just being opened should stop.
PATIENCE_S = 0.2
# A file that lags behind its own time by more than this is not hurried to catch up.
MOST_LAG_S = 1.0
# Leaves half a second of the two that Ctrl-C may take to the rest of the program.
STOP_S = 1.5


def stall_timeout_s(sample_hz: float) -> float:
    """Give the time after which frames that fail to come have stopped.

    Args:
        sample_hz: The model's rate.

    Returns:
        Five samples, but never less than half a second: an H.264 stream comes in bursts.
    """
    return max(0.5, 5.0 / sample_hz)


def unique_names(names: Sequence[str]) -> list[str]:
    """Make names of streams tell the streams apart.

    Args:
        names: What the sources call themselves.

    Returns:
        The same, where the second `cam` is `cam-2`.
    """
    taken: set[str] = set()
    unique = []
    for name in names:
        number, candidate = 1, name
        # A source may itself be called `cam-2`.
        while candidate in taken or (number > 1 and candidate in names):
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


@dataclass(frozen=True, kw_only=True)
class MonitorTiming:
    """Says how a monitor treats time; the defaults are for real cameras.

    Args:
        timeouts: How long opening and reading a source may take.
        backoff: How long to wait before trying a lost one again.
        heartbeat_s: Seconds between heartbeats.
        tick_s: Seconds between looks for frames that stopped.
        clock: Gives seconds that never jump.
    """

    timeouts: Timeouts = Timeouts()  # noqa: RUF009  frozen
    # Not longer, or a camera that is back would keep its viewers waiting for most of a quarter of a minute.
    backoff: Backoff = Backoff(max_s=5.0)  # noqa: RUF009  frozen
    heartbeat_s: float = HEARTBEAT_S
    tick_s: float = TICK_S
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.heartbeat_s <= 0 or self.tick_s <= 0:
            raise ValueError(f"heartbeat_s and tick_s must be above 0, not {self.heartbeat_s}, {self.tick_s}")


class Monitor:
    """Watches sources until they end, or until it is left.

    Args:
        sources: What to watch, at least one.
        sample_hz: The model's rate.
        analysis_of: Makes the analysis of one stream; called once per source, on that source's thread.
        publish: Sends a message; called from any thread.
        on_change: Called from any thread when a source was opened, lost or given up, and when all is over.
        timing: How time is treated.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        sample_hz: float,
        analysis_of: Callable[[], StreamAnalysis],
        publish: Callable[[BroadcastMessage], object],
        on_change: Callable[[], None] = lambda: None,
        timing: MonitorTiming | None = None,
    ) -> None:
        if not sources:
            raise ValueError("there must be at least one source")
        self._timing = timing or MonitorTiming()
        self._publish = publish
        self._on_change = on_change
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._settled = threading.Event()
        self._failure: BaseException | None = None
        self._started = self._timing.clock()
        self._watches = [
            _Watch(
                replace(source, name=name),
                sample_hz=sample_hz,
                analysis_of=analysis_of,
                publish=publish,
                on_change=self._changed,
                stopping=self._stopping,
                timing=self._timing,
            )
            for source, name in zip(sources, unique_names([source.name for source in sources]), strict=True)
        ]
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def __enter__(self) -> Self:
        for watch in self._watches:
            watch.announce()
        for watch in self._watches:
            watch.thread.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # One time for all, and a source that hangs in the system must not keep the program from ending.
        deadline = time.monotonic() + STOP_S
        for thread in (*(watch.thread for watch in self._watches), self._ticker):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.debug("%s did not stop in time", thread.name)

    @property
    def settled(self) -> bool:
        """Tell whether at least one source was opened or lost, or all are over: what to expect is known."""
        return self._settled.is_set()

    @property
    def finished(self) -> bool:
        """Tell whether all sources have ended or were given up, or an analysis broke."""
        return self._finished.is_set()

    @property
    def failure(self) -> BaseException | None:
        """Give what broke an analysis; None if nothing did. A source that cannot be read breaks nothing."""
        return self._failure

    @property
    def all_failed(self) -> bool:
        """Tell whether every source was given up."""
        return all(watch.gave_up is not None for watch in self._watches)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all sources have ended or were given up, or an analysis broke.

        Args:
            timeout_s: How long to wait; None for as long as it takes.

        Returns:
            Whether that is the case.
        """
        return self._finished.wait(timeout_s)

    def stop(self) -> None:
        """Ask all threads to end; returns at once."""
        self._stopping.set()
        for watch in self._watches:
            watch.request_stop()

    def _tick(self) -> None:
        clock, beaten = self._timing.clock, self._timing.clock()
        while not self._stopping.wait(self._timing.tick_s):
            for watch in self._watches:
                watch.tick()
            if clock() - beaten >= self._timing.heartbeat_s:
                beaten = clock()
                streams = tuple(watch.health() for watch in self._watches)
                self._publish(HeartbeatMessage(uptime_s=clock() - self._started, streams=streams))

    def _changed(self) -> None:
        for watch in self._watches:
            if self._failure is None:
                self._failure = watch.failure
        if self._failure is not None or all(watch.over for watch in self._watches):
            self._finished.set()
        if self._finished.is_set() or any(watch.settled for watch in self._watches):
            self._settled.set()
        self._on_change()


class _Watch:
    """One source with its threads, and what has become of it."""

    def __init__(
        self,
        source: Source,
        *,
        sample_hz: float,
        analysis_of: Callable[[], StreamAnalysis],
        publish: Callable[[BroadcastMessage], object],
        on_change: Callable[[], None],
        stopping: threading.Event,
        timing: MonitorTiming,
    ) -> None:
        self.source = source
        self.settled = False
        self.over = False
        self.gave_up: SourceError | None = None
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"analysis {source.name}", daemon=True)
        self._sample_hz = sample_hz
        self._analysis_of = analysis_of
        self._publish = publish
        self._on_change = on_change
        self._stopping = stopping
        self._timing = timing
        self._status = StreamStateMachine(source.name, stall_timeout_s=stall_timeout_s(sample_hz))
        # Held while messages are decided on and sent, so that they go out in the order they were decided.
        self._lock = threading.Lock()
        self._reader: Reader | None = None

    def announce(self) -> None:
        self._send(self._status.announce)

    def tick(self) -> None:
        self._send(lambda: self._status.tick(self._timing.clock()))

    def health(self) -> StreamHealth:
        reader = self._reader
        with self._lock:
            return self._status.health(dropped=0 if reader is None else reader.dropped)

    def request_stop(self) -> None:
        if self._reader is not None:
            self._reader.request_stop()

    def _send(self, decide: Callable[[], Messages]) -> None:
        with self._lock:
            for message in decide():
                self._publish(message)

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self.failure = error
        self.over = True
        self._on_change()

    def _watch(self) -> None:
        analysis = self._analysis_of()
        playback = None if self.source.live else Playback(self._timing.clock, self._stopping)
        connection = 0
        with open_reader(
            self.source,
            sample_hz=self._sample_hz,
            on_event=self._on_event,
            timeouts=self._timing.timeouts,
            backoff=self._timing.backoff,
        ) as reader:
            self._reader = reader
            while not self._stopping.is_set():
                try:
                    # Ends at once when the monitor stops, whatever the timeout.
                    frame = reader.next(timeout_s=PATIENCE_S)
                except EndOfStream as end:
                    if not self._stopping.is_set():
                        self._end(end.__cause__)
                    return
                if frame is None:
                    continue
                # The first frame of a connection always comes with a gap; one without belongs to the last.
                if frame.gap and connection != self._status.connection:
                    connection = self._status.connection
                    analysis.clear()
                if playback is not None:
                    playback.wait_for(frame.pts_s, restart=frame.gap)
                self._analyse(analysis, frame, connection)

    def _analyse(self, analysis: StreamAnalysis, frame: Frame, connection: int) -> None:
        if not self._status.accepts(connection):
            return
        taken = self._timing.clock()
        verdicts = [verdict.message(self.source.name) for verdict in analysis.analyse(frame)]

        def decide() -> Messages:
            # Asked again, under the lock: the source may have been lost while this frame was analysed.
            if not self._status.accepts(connection) or self._stopping.is_set():
                return []
            return self._status.frame_analysed(verdicts, faces=len(analysis.faces), now=taken)

        self._send(decide)

    def _on_event(self, event: Event) -> None:
        """Take in what the reader tells, on the reader's thread."""
        match event:
            case Connected():
                if self._status.state == "offline":
                    logger.info("%s: connected again", self.source.name)
                self._send(self._status.connected)
            case Disconnected(error=error):
                # Once per outage, however many attempts it takes.
                if self._status.state != "offline":
                    logger.warning("%s; trying again until it is back", error)
                self._send(lambda: self._status.disconnected(error.reason))
            case TooSlow(fps=fps, needed_hz=needed_hz):
                self._send(lambda: self._status.too_slow(fps, needed_hz))
            case FastEnough():
                self._send(self._status.fast_enough)
            case Connecting() | Ended() | Failed():
                # What was read before the end is still to be analysed: the end comes with `EndOfStream`.
                return
        if not self.settled:
            self.settled = True
            self._on_change()

    def _end(self, cause: BaseException | None) -> None:
        """Take in that the reader has nothing more to give."""
        match cause:
            case None:
                self._send(self._status.ended)
            case SourceError():
                self.gave_up = cause
                logger.error("%s", cause)
                self._send(lambda: self._status.failed(cause.reason))
            case _:
                raise cause


class Waitable(Protocol):
    """Something to wait for that may come earlier, such as a `threading.Event`."""

    def wait(self, timeout: float) -> bool:
        """Wait, at most so many seconds."""
        ...


class Playback:
    """Holds the samples of a file back until their time has come.

    Args:
        clock: Gives seconds that never jump.
        stopping: Cuts every wait short.
    """

    def __init__(self, clock: Callable[[], float], stopping: Waitable) -> None:
        self._clock = clock
        self._stopping = stopping
        self._start: float | None = None

    def wait_for(self, pts_s: float, *, restart: bool) -> None:
        """Wait until a sample is due.

        Args:
            pts_s: Its time in the file, in seconds.
            restart: Whether that time may have jumped; the sample is due at once then.
        """
        now = self._clock()
        if self._start is None or restart or now - self._start - pts_s > MOST_LAG_S:
            self._start = now - pts_s
        self._stopping.wait(max(0.0, self._start + pts_s - now))
