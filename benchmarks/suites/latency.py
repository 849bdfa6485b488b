"""Latency of a verdict by stage, with one stream and one frame at a time, as in MLPerf's single stream.

The stages are timed by wrapping the callables that are passed into the analysis (`harness/stage_timer.py`):

    decode    from packet to frame; drawing it, for `demo`
    convert   scaling the frame for the face detector and reading the detector's output maps
    detect    the network of the detector; zero in frames where faces are only tracked (two of three)
    track     the grey image, optical flow and identities
    crop      cutting the faces out, with their conversion to RGB
    queue     to the thread of the batcher and back, and waiting for a batch
    backbone  from crops to features
    head      from crops and features to logits: the temporal residuals and the head
    verdict   the rest of the analysis: buffers, calibration, thresholds
    send      encoding the messages and handing them to the thread of the server

`total` is their sum. Waiting for the next frame is in none of them. Only frames with a scored verdict count.
A live source has two more: `capture`, from capture to verdict, and `subscriber`, from capture until
`runtime.client.watch` in another process has the message, through a real server and socket. The time of
capture is estimated from the arrival of the frame, so the network path from the camera is not included; all
waiting in this program is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.harness.benchmark_record import (
    Figure,
    Output,
    OutputConfig,
    distribution,
    figure_table,
    new_record,
)
from benchmarks.harness.errors import NothingMeasured
from benchmarks.harness.stage_timer import StageTimer, TimedBackbone, TimedDetector, stage_times
from benchmarks.helpers.server_thread import serve_in_thread
from benchmarks.helpers.subscribers import Subscribers
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.messages import HelloMessage
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.metrics import Metrics
from runtime.version import version
from streams.errors import EndOfStream
from streams.faces.detector import Infer
from streams.faces.finder import FaceFinder
from streams.input.events import Event, TooSlow
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import Source, parse_source

# Time to wait for the first scored face of a live source.
FIRST_SCORE_S = 30.0
# Time after which a message that the subscriber has not received is lost.
ARRIVAL_S = 0.5


@dataclass
class StageLatencies:
    """Milliseconds of every stage, after the warm-up.

    Args:
        warmup: Number of scored frames to leave out first.
    """

    warmup: int
    scored: int = 0
    faces: list[int] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    def add(self, stages: Mapping[str, float], *, faces: int) -> None:
        """Add a frame with a scored verdict.

        Args:
            stages: Milliseconds of each stage, in the order of the pipeline.
            faces: Number of faces scored in it.
        """
        self.scored += 1
        if self.scored > self.warmup:
            self.faces.append(faces)
            for stage, spent_ms in stages.items():
                self.stages.setdefault(stage, []).append(spent_ms)

    def figures(self, repeats: int) -> dict[str, Figure]:
        """Return the distribution of each stage.

        Args:
            repeats: Number of consecutive parts to divide the frames into, for the noise.
        """
        return {stage: distribution(_parts(values, repeats), "ms") for stage, values in self.stages.items()}


@dataclass(frozen=True, kw_only=True)
class LatencyConfig(OutputConfig):
    """Settings of `unmask bench latency`.

    Args:
        source: `demo`, a video file, an RTSP address, or any other source of `unmask monitor`. A file that is
            too short is repeated.
        samples: Number of frames with a verdict to measure.
        warmup: Number of frames with a verdict to leave out first.
        repeats: Number of parts to divide the frames into, for the noise.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    source: str = "demo"
    samples: int = 200
    warmup: int = 30
    repeats: int = 3
    model: Path | None = None
    engine: str = "auto"


def run_latency(config: LatencyConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: The source has no face that could be scored, the subscriber failed, or a record cannot
            be written or read.
        SourceError: The source cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("latency", config)
    source = parse_source(config.source)
    bundle = load_bundle(config.model)
    infer = detector_infer(config.engine)
    collected = StageLatencies(config.warmup)
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(bundle, config.engine))
        publisher = _Publisher(source, stack)
        _measure(source, bundle, engine, infer, publisher, collected, config.samples)
        described = engine.describe()
        figures = collected.figures(config.repeats)
        if source.live:
            figures["subscriber"] = distribution(_parts(publisher.delivered_ms(), config.repeats), "ms")
    record = new_record(
        "latency",
        settings={
            "source": source.spec,
            "samples": config.samples,
            "warmup": config.warmup,
            "repeats": config.repeats,
        },
        figures=figures,
        warmup=f"{config.warmup} frames with a verdict",
        bundle=bundle,
        engine=described,
        notes=[]
        if source.live
        else ["a file has no time of capture: give demo or a camera to measure capture to subscriber"],
        n=len(collected.faces),
        faces=round(float(np.mean(collected.faces)), 2),
    )
    output.finish(record, figure_table("ms", figures, bold="total"))
    return 0


def _measure(
    source: Source,
    bundle: Bundle,
    engine: Engine,
    infer: Infer,
    publisher: _Publisher,
    collected: StageLatencies,
    samples: int,
) -> None:
    """Analyse frames until enough of them are measured."""
    timer = StageTimer()
    with (
        Batcher(TimedBackbone(engine.features, timer)) as batcher,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        finder = FaceFinder(TimedDetector(infer, timer))
        analysis = StreamAnalysis(bundle, head=engine, features=batcher, finder=finder)
        task = progress.add_task("measuring", total=collected.warmup + samples)
        for frame in _frames(source, bundle.sample_hz, collected):
            timer.take()
            started = time.perf_counter()
            verdicts = analysis.analyse(frame)
            analysed = time.perf_counter()
            seq = publisher.send(verdicts)
            sent = time.perf_counter()
            scored = [verdict for verdict in verdicts if verdict.p_fake is not None]
            if scored:
                analysis_ms, send_ms = 1e3 * (analysed - started), 1e3 * (sent - analysed)
                stages = stage_times(frame, scored, timer.take(), analysis_ms=analysis_ms, send_ms=send_ms)
                if frame.captured is not None and scored[0].latency is not None:
                    stages["capture"] = scored[0].latency.total
                    if collected.scored >= collected.warmup:
                        publisher.expect(seq, frame.captured)
                collected.add(stages, faces=len(scored))
                progress.update(task, completed=collected.scored)
            if len(collected.faces) == samples:
                break


class _Publisher:
    """Publisher of verdicts as in `unmask monitor`: a broadcaster, and for a live source a real client."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self._stream = source.name
        self._broadcaster = Broadcaster(
            HelloMessage(version=version(), session=new_session()), sinks=[Metrics()]
        )
        self._subscribers: Subscribers | None = None
        self._expected: dict[int, float] = {}
        if source.live:
            server = stack.enter_context(serve_in_thread(self._broadcaster, port=0))
            self._subscribers = stack.enter_context(Subscribers(server.urls.websocket, fast=1))

    def send(self, verdicts: list[FaceVerdict]) -> int:
        """Publish all verdicts of a frame; return the number of the last message."""
        seq = 0
        for verdict in verdicts:
            seq = self._broadcaster.publish(verdict.message(self._stream))
        return seq

    def expect(self, seq: int, captured: float) -> None:
        """Remember the Unix time of capture of the frame that a message belongs to."""
        self._expected[seq] = time.monotonic() - (time.time() - captured)

    def delivered_ms(self) -> list[float]:
        """Return the milliseconds from capture to the subscriber, for all messages that arrived."""
        assert self._subscribers is not None
        time.sleep(ARRIVAL_S)
        (arrivals,) = self._subscribers.collect().fast
        return [
            1e3 * (arrived - self._expected[int(seq)])
            for seq, arrived in arrivals.tolist()
            if int(seq) in self._expected
        ]


def _frames(source: Source, sample_hz: float, collected: StageLatencies) -> Iterator[Frame]:
    """Yield the samples of a source; a file is repeated as long as some of its samples are scored."""
    segments = 0
    while True:
        before, slow, last_segment = collected.scored, False, segments

        def on_event(event: Event) -> None:
            nonlocal slow
            slow = slow or isinstance(event, TooSlow)

        # No reconnection: a measurement must not have a gap.
        with open_reader(source, sample_hz=sample_hz, on_event=on_event, retry=False) as reader:
            started = time.monotonic()
            while not source.live or collected.scored > before or time.monotonic() - started < FIRST_SCORE_S:
                try:
                    frame = reader.next(timeout_s=1.0)
                except EndOfStream as end:
                    if end.__cause__ is not None:
                        raise end.__cause__ from None
                    break
                if frame is not None:
                    # Each reader counts from the start; a repetition is another segment.
                    frame = replace(frame, segment=segments + frame.segment)
                    last_segment = frame.segment
                    yield frame
        segments = last_segment + 1
        if collected.scored == before:
            reason = "too few frames a second" if slow else "no face that could be scored"
            raise NothingMeasured(source.spec, reason)


def _parts(values: list[float], repeats: int) -> list[list[float]]:
    return [part.tolist() for part in np.array_split(np.asarray(values, np.float64), repeats) if len(part)]
