"""What a verdict costs, stage by stage: one stream, one frame after the other, as in MLPerf's single stream.

The stages are the runtime's own, told apart by what is passed into it (`benchmarks/stopwatch.py`):

    decode    from packet to picture; of `demo`, drawing it
    convert   scaling the picture down for the face detector and reading its maps: in one, so merged here
    detect    the detector's network; zero in the frames where faces are only followed (two of three)
    track     the grey picture, optical flow, and giving ids
    crop      cutting the faces out, with their conversion to RGB
    queue     to the batcher's thread and back, and waiting for its turn
    backbone  from crops to features
    head      from crops and features to logits: measuring the flicker, and the head itself
    verdict   all the rest of the analysis: buffers, calibration, thresholds
    send      making the messages and handing them to the server's thread

`total` is their sum. Waiting for the next frame is in none of them. Only frames with a scored verdict count.
Of a live source there are two more: `capture`, from capture to verdict, and `subscriber`, from capture until
`runtime.client.watch` in another process has the message, through a real server and socket. When a camera
captured a frame is estimated from the frame's arrival: the way from the camera is not in these two, but every
wait since is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.harness.errors import NothingMeasured
from benchmarks.harness.record import Figure, Output, distribution, figure_table, new_record
from benchmarks.harness.stage_timer import StageTimer, TimedBackbone, TimedDetector, split
from benchmarks.helpers.server_thread import serve_in_thread
from benchmarks.helpers.subscribers import Subscribers
from runtime.engines.factory import detector_infer, open_engine
from runtime.messages import HelloMessage
from runtime.model.bundle import load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.metrics import Metrics
from runtime.version import version
from streams.errors import EndOfStream
from streams.faces.finder import FaceFinder
from streams.input.events import Event, TooSlow
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import Source, parse_source

# Of a live source, a face that has not been scored after this long will not be.
PATIENCE_S = 30.0
# What is still on its way to the subscriber after this is lost.
ARRIVAL_S = 0.5


@dataclass
class StageLatencies:
    """Collects the milliseconds of every stage, once it is warm.

    Args:
        warmup: How many frames are left out first.
    """

    warmup: int
    scored: int = 0
    faces: list[int] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    def add(self, stages: Mapping[str, float], *, faces: int) -> None:
        """Take in a frame with a scored verdict.

        Args:
            stages: Milliseconds of each stage, in the order of the pipeline.
            faces: How many faces were scored in it.
        """
        self.scored += 1
        if self.scored > self.warmup:
            self.faces.append(faces)
            for stage, spent_ms in stages.items():
                self.stages.setdefault(stage, []).append(spent_ms)

    def figures(self, repeats: int) -> dict[str, Figure]:
        """Give the distribution of each stage.

        Args:
            repeats: In how many parts the frames are taken, one after the other, to see the noise.
        """
        return {stage: distribution(_parts(values, repeats), "ms") for stage, values in self.stages.items()}


def run_latency(
    source: str,
    *,
    samples: int,
    warmup: int,
    repeats: int = 3,
    model: Path | None = None,
    engine: str = "auto",
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        source: `demo`, a video file, an RTSP address, or anything else that can be watched.
        samples: How many frames with a verdict to measure.
        warmup: How many to leave out before.
        repeats: In how many parts they are taken, to see the noise.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: As for `open_engine`.
        json_out: Where to write the record; None for nowhere.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: The source has no face that could be scored, or a record cannot be written or read.
        SourceError: The source cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("latency", json_out=json_out, compare=compare)
    record, figures = measure_latency(
        parse_source(source), samples=samples, warmup=warmup, repeats=repeats, model=model, engine=engine
    )
    output.finish(record, figure_table("ms", figures, bold="total"))
    return 0


def measure_latency(
    source: Source,
    *,
    samples: int,
    warmup: int,
    repeats: int = 3,
    model: Path | None = None,
    engine: str = "auto",
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Measure the stages of one stream.

    Args:
        source: What to analyse; a file that is too short is analysed again from its start.
        samples: How many frames with a verdict to measure.
        warmup: How many to leave out before.
        repeats: In how many parts they are taken, to see the noise.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: As for `open_engine`.

    Returns:
        The record as JSON values, and its figures by stage.

    Raises:
        BenchmarkError: The source has no face that could be scored, or the subscriber broke.
        SourceError: The source cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    bundle = load_bundle(model)
    stopwatch, collected = StageTimer(), StageLatencies(warmup)
    infer = detector_infer(engine)
    with ExitStack() as stack:
        running = stack.enter_context(open_engine(bundle, engine))
        batcher = stack.enter_context(Batcher(TimedBackbone(running.features, stopwatch)))
        finder = FaceFinder(TimedDetector(infer, stopwatch))
        analysis = StreamAnalysis(bundle, head=running, features=batcher, finder=finder)
        outlet = _Outlet(source, stack)
        progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        task = progress.add_task("measuring", total=warmup + samples)
        for frame in _frames(source, bundle.sample_hz, collected):
            stopwatch.take()
            started = time.perf_counter()
            verdicts = analysis.analyse(frame)
            analysed = time.perf_counter()
            seq = outlet.send(verdicts)
            sent = time.perf_counter()
            scored = [verdict for verdict in verdicts if verdict.p_fake is not None]
            if scored:
                spent_ms, sent_ms = 1e3 * (analysed - started), 1e3 * (sent - analysed)
                stages = split(frame, scored, stopwatch.take(), analysis_ms=spent_ms, send_ms=sent_ms)
                if frame.captured is not None and scored[0].latency is not None:
                    stages["capture"] = scored[0].latency.total
                    if collected.scored >= warmup:
                        outlet.expect(seq, frame.captured)
                collected.add(stages, faces=len(scored))
                progress.update(task, completed=collected.scored)
            if len(collected.faces) == samples:
                break
        described = running.describe()
        figures = collected.figures(repeats)
        if source.live:
            figures["subscriber"] = distribution(_parts(outlet.delivered_ms(), repeats), "ms")
    record = new_record(
        "latency",
        settings={"source": source.spec, "samples": samples, "warmup": warmup, "repeats": repeats},
        figures=figures,
        warmup=f"{warmup} frames with a verdict",
        bundle=bundle,
        engine=described,
        notes=[]
        if source.live
        else ["a file has no capture: give demo or a camera for capture-to-subscriber"],
        n=len(collected.faces),
        faces=round(float(np.mean(collected.faces)), 2),
    )
    return record, figures


class _Outlet:
    """Receivers of the verdicts as in `unmask monitor`: a broadcaster, and for a live source a client."""

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
        """Publish all verdicts of a frame; the last one's number."""
        seq = 0
        for verdict in verdicts:
            seq = self._broadcaster.publish(verdict.message(self._stream))
        return seq

    def expect(self, seq: int, captured: float) -> None:
        """Remember that a message stands for a frame that was captured at that Unix time."""
        self._expected[seq] = time.monotonic() - (time.time() - captured)

    def delivered_ms(self) -> list[float]:
        """Give the milliseconds from capture to the subscriber, for all messages that arrived."""
        assert self._subscribers is not None
        time.sleep(ARRIVAL_S)
        (arrivals,) = self._subscribers.collect().fast
        return [
            1e3 * (arrived - self._expected[int(seq)])
            for seq, arrived in arrivals.tolist()
            if int(seq) in self._expected
        ]


def _frames(source: Source, sample_hz: float, collected: StageLatencies) -> Iterator[Frame]:
    """Give the samples of a source without end, as long as some of them are scored."""
    while True:
        before, slow = collected.scored, False

        def listen(event: Event) -> None:
            nonlocal slow
            slow = slow or isinstance(event, TooSlow)

        # Not tried again when it is lost: a measurement with a hole in it is none.
        with open_reader(source, sample_hz=sample_hz, on_event=listen, retry=False) as reader:
            started = time.monotonic()
            while not source.live or collected.scored > before or time.monotonic() - started < PATIENCE_S:
                try:
                    frame = reader.next(timeout_s=1.0)
                except EndOfStream as end:
                    if end.__cause__ is not None:
                        raise end.__cause__ from None
                    break
                if frame is not None:
                    yield frame
        if collected.scored == before:
            reason = "too few frames a second" if slow else "no face that could be scored"
            raise NothingMeasured(source.spec, reason)


def _parts(values: list[float], repeats: int) -> list[list[float]]:
    return [part.tolist() for part in np.array_split(np.asarray(values, np.float64), repeats) if len(part)]
