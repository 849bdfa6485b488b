"""Analysis of several live sources in one process, one thread per source.

    with Monitor(sources, sample_hz=8.0, new_analysis=new_analysis, publish=broadcaster.publish) as monitor:
        monitor.wait()

Each source has two threads: the reader's, which receives and decodes, and one that analyses the frames. One
more thread for all sources publishes the heartbeat and detects streams whose frames have stopped.

A file is played at the rate of its own time stamps, and no sample of it is dropped: on a slow machine it
takes longer. The stream ends with the file.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import msgspec

from runtime.config.sources import WatchedSource, unique_names
from runtime.engines.cpu import Turns, usable_cores
from runtime.errors import StreamNameTaken, StreamUnknown
from runtime.messages import BroadcastMessage, HeartbeatMessage, Thresholds
from runtime.model.bundle import Bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import Head, StreamAnalysis
from runtime.pipeline.stream_state import stall_timeout_s
from runtime.pipeline.stream_thread import FrameSink, MonitorTiming, StreamThread
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.clips.packet_ring import RingLimits
from streams.input.source import Source

logger = logging.getLogger(__name__)

# Shutdown after Ctrl-C should take at most two seconds; this leaves half a second for the rest of the
# program.
STOP_TIMEOUT_S = 1.5


@dataclass(frozen=True)
class AnalysisFactory:
    """Factory of the analyses of streams, with settings of their own.

    Args:
        bundle: The model.
        head: Engine for the head.
        batcher: Batcher of the crops of all streams.
        infer: Inference of the face detector.
        turns: Turns of all streams; as many as there are cores by default.
        phases: Phase of each new analysis, so that their expensive samples are not the same ones.
    """

    bundle: Bundle
    head: Head
    batcher: Batcher
    infer: Infer
    turns: Turns = field(default_factory=lambda: Turns(usable_cores()))
    phases: Iterator[int] = field(default_factory=itertools.count)

    def factory(self, source: WatchedSource) -> Callable[[], StreamAnalysis]:
        """Return a function that makes an analysis for a source."""
        bundle = self._bundle_of(source)

        def new_analysis() -> StreamAnalysis:
            phase = next(self.phases)
            return StreamAnalysis(
                bundle,
                head=self.head,
                features=self.batcher,
                finder=FaceFinder(Detector(self.infer), phase=phase),
                phase=phase,
                verdict_hz=source.rate_hz,
                turns=self.turns,
                expiry_s=stall_timeout_s(bundle.sample_hz),
            )

        return new_analysis

    def thresholds(self, source: WatchedSource) -> Thresholds:
        """Return the thresholds of a source."""
        calibration = self._bundle_of(source).calibration
        return Thresholds(real=calibration.threshold_real, fake=calibration.threshold_fake)

    def _bundle_of(self, source: WatchedSource) -> Bundle:
        model = self.bundle.calibration
        real, fake = source.thresholds_or(model.threshold_real, model.threshold_fake)
        calibration = replace(model, threshold_real=real, threshold_fake=fake)
        return msgspec.structs.replace(self.bundle, calibration=calibration)


class Monitor:
    """Live analysis of all sources until they end or the context is left.

    On an event loop, use `async with`: leaving the context waits for the threads, up to `STOP_TIMEOUT_S`.

    Args:
        sources: Sources to watch; others may be added while it runs.
        sample_hz: Sample rate of the model.
        new_analysis: Factory of the analysis of one stream; called on that source's thread, at the start and
            at each restart. None if each source is added with its own.
        publish: Function that sends a message; called from any thread.
        on_change: Called from any thread when a source was opened, lost or failed, and when all have
            finished.
        timing: Timeouts, intervals and clock.
        on_frame: Receives each scored frame on its source's thread; must return at once and must not raise.
        keep: Limits of the packets that scored frames refer to; None to keep none.
    """

    def __init__(
        self,
        sources: Sequence[Source] = (),
        *,
        sample_hz: float,
        new_analysis: Callable[[], StreamAnalysis] | None = None,
        publish: Callable[[BroadcastMessage], object],
        on_change: Callable[[], None] = lambda: None,
        timing: MonitorTiming | None = None,
        on_frame: FrameSink = lambda scored: None,
        keep: RingLimits | None = None,
    ) -> None:
        self._timing = timing or MonitorTiming()
        self._publish = publish
        self._on_change = on_change
        self._stopping = threading.Event()
        self._sample_hz = sample_hz
        self._new_analysis = new_analysis
        self._on_frame = on_frame
        self._keep = keep
        # Replaced as a whole by the thread that adds and removes streams, because others iterate over it.
        self._streams: tuple[StreamThread, ...] = ()
        self._running = False
        self._finished = threading.Event()
        self._settled = threading.Event()
        # Guards the decision whether the monitor has finished, which is made on the threads of the streams.
        self._lock = threading.Lock()
        self._changing = self._has_ended = False
        self._failure: BaseException | None = None
        self._started = self._timing.clock()
        for source, name in zip(sources, unique_names(sources), strict=True):
            self.add(replace(source, name=name))
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def __enter__(self) -> Self:
        self._running = True
        for stream in self._streams:
            stream.publish_state()
        for stream in self._streams:
            stream.thread.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # One deadline for all threads: a source that hangs in the system must not keep the program running.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in (*(stream.thread for stream in self._streams), self._ticker):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.debug("%s did not stop in time", thread.name)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # In a thread, because the event loop must continue while the analysis threads end.
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    @property
    def settled(self) -> bool:
        """Whether at least one source was opened or lost, or all have finished."""
        return self._settled.is_set()

    @property
    def finished(self) -> bool:
        """Whether all sources have ended or failed, or the engine has failed."""
        return self._finished.is_set()

    @property
    def failure(self) -> BaseException | None:
        """Error of the engine, which all streams share; None if there is none."""
        return self._failure

    @property
    def all_failed(self) -> bool:
        """Whether every source has failed and will not be tried again."""
        return all(stream.failed for stream in self._streams)

    @property
    def finished_streams(self) -> dict[str, bool]:
        """Names of the sources that have ended or failed, each with whether it has failed."""
        return {stream.source.name: stream.failed for stream in self._streams if stream.finished}

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the monitor has finished.

        Args:
            timeout_s: Longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has finished.
        """
        return self._finished.wait(timeout_s)

    @property
    def names(self) -> list[str]:
        """Names of the streams, in the order in which they were added."""
        return [stream.source.name for stream in self._streams]

    @property
    def sources(self) -> list[Source]:
        """Sources of the streams, under their present names."""
        return [stream.source for stream in self._streams]

    def add(
        self,
        source: Source,
        new_analysis: Callable[[], StreamAnalysis] | None = None,
        *,
        thresholds: Thresholds | None = None,
    ) -> None:
        """Watch one more source; it is opened at once if the monitor runs, else when it starts.

        Streams are added, removed and renamed on one thread.

        Args:
            source: The source; its name is the name of the stream.
            new_analysis: Factory of its analysis; None for that of the monitor.
            thresholds: Thresholds of its analysis, to be published; None for those of the program.

        Raises:
            StreamNameTaken: There is a stream of that name.
            ValueError: Neither it nor the monitor has a factory.
        """
        self._check_free(source.name)
        factory = new_analysis or self._new_analysis
        if factory is None:
            raise ValueError(f"the stream {source.name!r} needs a factory of its analysis")
        stream = StreamThread(
            source,
            sample_hz=self._sample_hz,
            new_analysis=factory,
            publish=self._publish,
            on_change=lambda: self._update(stream),
            timing=self._timing,
            on_frame=self._on_frame,
            keep=self._keep,
            thresholds=thresholds,
        )
        self._streams = (*self._streams, stream)
        if self._running:
            stream.publish_state()
            stream.thread.start()

    def remove(self, name: str) -> threading.Thread:
        """Stop to watch a stream; the other streams lose nothing.

        The monitor continues, even if no other stream is left or all others have ended: more may be added.

        Args:
            name: Its name.

        Returns:
            Its thread, which ends soon. Wait for it before the same source is opened again.

        Raises:
            StreamUnknown: There is no stream of that name.
        """
        stream = self._find(name)
        self._streams = tuple(other for other in self._streams if other is not stream)
        stream.remove()
        return stream.thread

    def rename(self, name: str, new_name: str) -> None:
        """Rename a stream, which continues without an interruption.

        Args:
            name: Its name.
            new_name: Its new name.

        Raises:
            StreamUnknown: There is no stream of that name.
            StreamNameTaken: There is a stream of the new name.
        """
        stream = self._find(name)
        if new_name != name:
            self._check_free(new_name)
            stream.rename(new_name)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Make several changes; the monitor does not finish before the last, when no stream may be left."""
        with self._lock:
            self._changing = True
        try:
            yield
        finally:
            with self._lock:
                self._changing = False
                self._finish_if_ended()
            self._on_change()

    def _find(self, name: str) -> StreamThread:
        for stream in self._streams:
            if stream.source.name == name:
                return stream
        raise StreamUnknown(name, self.names)

    def _check_free(self, name: str) -> None:
        if name in self.names:
            raise StreamNameTaken(name)

    def stop(self) -> None:
        """Ask all threads to end; returns at once."""
        self._stopping.set()
        for stream in self._streams:
            stream.request_stop()

    def _tick(self) -> None:
        clock, last_heartbeat = self._timing.clock, self._timing.clock()
        while not self._stopping.wait(self._timing.tick_s):
            for stream in self._streams:
                stream.tick()
            if clock() - last_heartbeat >= self._timing.heartbeat_s:
                last_heartbeat = clock()
                health = tuple(stream.health() for stream in self._streams)
                self._publish(HeartbeatMessage(uptime_s=clock() - self._started, streams=health))

    def _update(self, stream: StreamThread) -> None:
        """Handle a stream that was opened or lost, or has ended."""
        with self._lock:
            if stream in self._streams:
                self._failure = self._failure or stream.engine_failure
                self._has_ended |= stream.finished
                self._finish_if_ended()
                if stream.settled or self._finished.is_set():
                    self._settled.set()
        self._on_change()

    def _finish_if_ended(self) -> None:
        """Finish if the engine has failed, or no stream is left after one has ended by itself."""
        if self._has_ended and not self._changing:
            self._has_ended = False
            if self._streams and all(stream.finished for stream in self._streams):
                self._finished.set()
        if self._failure is not None:
            self._finished.set()
