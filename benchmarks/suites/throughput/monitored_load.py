"""Measurement of monitors on live streams: verdicts, latency, CPU load and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.hardware.cpu_load import CpuLoad, memory_mib
from benchmarks.harness.stage_timer import StageTimer, TimedBackbone
from benchmarks.suites.throughput.load_step import LoadStep
from runtime.engines.interface import Engine
from runtime.messages import HeartbeatMessage, HelloMessage, StreamHealth, VerdictMessage
from runtime.model.bundle import Bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_state import stall_timeout_s
from runtime.pipeline.stream_thread import MonitorTiming
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.metrics import Metrics
from runtime.version import version
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.source import Source

HEARTBEAT_S = 0.2
START_S = 20.0
# Work of the program's threads, by the first word of their names.
THREAD_PARTS = {
    "reader": "decoding",
    "analysis": "face detection and scoring",
    "backbone": "backbone",
    # The engine computes several crops at the same time.
    "crops": "backbone",
    "workers": "engine threads",
}


class MonitoredLoad:
    """Measurement of monitors on a number of live streams.

    Args:
        bundle: Model bundle.
        engine: Open engine.
        infer: Network of the face detector.
        rate_hz: Verdicts per second and face; None for the model's sample rate.
        seconds: Length of the measurement.
        warmup_s: Time before it.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        infer: Infer,
        rate_hz: float | None,
        *,
        seconds: float,
        warmup_s: float,
    ) -> None:
        self._bundle = bundle
        self._engine = engine
        self._infer = infer
        self._rate_hz = rate_hz
        self._seconds = seconds
        self._warmup_s = warmup_s

    def measure(self, sources: Sequence[Source]) -> LoadStep:
        """Monitor sources and measure.

        Args:
            sources: Live sources, at least one.

        Raises:
            EngineFailed: An analysis failed.
        """
        timer, log = StageTimer(), MonitorLog()
        hello = HelloMessage(version=version(), session=new_session())
        broadcaster = Broadcaster(hello, sinks=[Metrics(), log])
        with ExitStack() as stack:
            batcher = stack.enter_context(Batcher(TimedBackbone(self._engine.features, timer)))

            def new_analysis() -> StreamAnalysis:
                return StreamAnalysis(
                    self._bundle,
                    head=self._engine,
                    features=batcher,
                    finder=FaceFinder(Detector(self._infer)),
                    verdict_hz=self._rate_hz,
                    expiry_s=stall_timeout_s(self._bundle.sample_hz),
                )

            monitor = stack.enter_context(
                Monitor(
                    sources,
                    sample_hz=self._bundle.sample_hz,
                    new_analysis=new_analysis,
                    publish=broadcaster.publish,
                    timing=MonitorTiming(heartbeat_s=HEARTBEAT_S, tick_s=HEARTBEAT_S / 2),
                )
            )
            deadline = time.monotonic() + START_S
            while not log.all_analysed() and time.monotonic() < deadline and not monitor.finished:
                time.sleep(HEARTBEAT_S)
            monitor.wait(self._warmup_s)
            timer.take()
            before = log.begin()
            with CpuLoad() as load:
                monitor.wait(self._seconds)
            after = log.end()
            backbone_ms = timer.take().get("backbone", 0.0)
            memory = memory_mib()
        if monitor.failure is not None:
            raise monitor.failure
        return log.step(before, after, load, backbone_ms, memory, due_hz=self._bundle.sample_hz)


class MonitorLog:
    """Sink of the broadcaster that keeps the newest stream health and the latency of each verdict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._health: tuple[float, Sequence[StreamHealth]] = (0.0, ())
        self._verdicts: list[tuple[str, float, float]] = []
        self._measuring = False

    def __call__(self, encoded: EncodedMessage) -> None:
        message = encoded.message
        with self._lock:
            if isinstance(message, HeartbeatMessage):
                self._health = (message.time, message.streams)
            elif isinstance(message, VerdictMessage) and self._measuring:
                captured = message.captured
                # The message about a lost face belongs to no frame and has no latency.
                if captured is not None and message.latency_ms is not None:
                    latency_ms = 1e3 * (message.time - captured)
                    self._verdicts.append((message.stream, message.pts_s, latency_ms))

    def all_analysed(self) -> bool:
        """Return whether every stream has had its first sample analysed."""
        _, streams = self._health
        return bool(streams) and all(stream.analysed for stream in streams)

    def begin(self) -> tuple[float, Sequence[StreamHealth]]:
        """Start counting; return the time and the counters up to now."""
        with self._lock:
            self._measuring = True
            return self._health

    def end(self) -> tuple[float, Sequence[StreamHealth]]:
        """Stop counting; return the time and the counters up to now."""
        with self._lock:
            self._measuring = False
            return self._health

    def step(
        self,
        before: tuple[float, Sequence[StreamHealth]],
        after: tuple[float, Sequence[StreamHealth]],
        load: CpuLoad,
        backbone_ms: float,
        memory: float | None,
        *,
        due_hz: float,
    ) -> LoadStep:
        """Return the measurements between `begin` and `end`."""
        elapsed_s = max(after[0] - before[0], 1e-3)
        earlier = {stream.stream: stream for stream in before[1]}
        analysed, dropped, lost = [], 0, 0
        for stream in after[1]:
            start = earlier[stream.stream]
            analysed.append((stream.analysed - start.analysed) / elapsed_s)
            dropped += stream.dropped - start.dropped
            live = all(each.state in ("live", "no_face") for each in (start, stream))
            lost += not live or stream.reconnects != start.reconnects
        # All faces of a frame share its time, so a frame counts once.
        frames = {(stream, pts_s): latency_ms for stream, pts_s, latency_ms in self._verdicts}
        each = [sum(name == stream.stream for name, _ in frames) for stream in after[1]]
        return LoadStep(
            streams=len(after[1]),
            latency_ms=list(frames.values()),
            verdicts_hz=min(each, default=0) / load.wall_s,
            analysed_hz=min(analysed, default=0.0),
            due_hz=due_hz,
            dropped=dropped,
            lost=lost,
            own_cores=load.own_cores,
            machine_cores=load.machine_cores,
            memory_mib=memory,
            cores_by=_cores_by(load),
            backbone_busy=backbone_ms / 1e3 / load.wall_s,
            faces=len(self._verdicts) / max(len(frames), 1),
        )


def _cores_by(load: CpuLoad) -> dict[str, float]:
    """Return the cores that each part of the program kept busy."""
    spent_s: dict[str, float] = {}
    for thread, part in THREAD_PARTS.items():
        if thread in load.by_thread_s:
            spent_s[part] = spent_s.get(part, 0.0) + load.by_thread_s[thread]
    return {part: round(seconds / load.wall_s, 3) for part, seconds in spent_s.items()}
