"""How many streams this machine sustains at a given rate of verdicts, and what stops it from doing more.

MLPerf's server scenario: the load is given, not chosen. Real monitors watch live streams, more and more of
them, until a step breaks: a due sample got no verdict, too few were analysed, or messages came too late. A
file is sent by live cameras of another process (`benchmarks/cameras.py`), at several resolutions; `demo` and
addresses are watched as they are, the same one many times over. Decoding is part of the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.hardware.cpu_load import Load, memory_mib
from benchmarks.harness.capacity_search import max_capacity
from benchmarks.harness.errors import NothingMeasured, SettingInvalid
from benchmarks.harness.record import (
    Figure,
    Output,
    distribution,
    new_record,
    new_table,
    percentiles,
    quantity,
)
from benchmarks.harness.stage_timer import StageTimer, TimedBackbone
from benchmarks.helpers.cameras import Cameras
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import RateTooHigh
from runtime.messages import HeartbeatMessage, HelloMessage, StreamHealth, VerdictMessage
from runtime.model.bundle import Bundle, load_bundle
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
from streams.input.source import Source, parse_source

HEIGHTS = (480, 720, 1080)
# The share of the due samples that has to be analysed: the grid and the clock may be off by a frame.
ENOUGH = 0.95
# From here on a core, or all of them, count as busy.
BUSY = 0.9
HEARTBEAT_S = 0.2
START_S = 20.0
# What the program's threads do, by the first word of their names.
PARTS = {
    "reader": "decoding",
    "analysis": "finding faces and judging",
    "backbone": "backbone",
    "workers": "the engine's helpers",
}

SourceOf = Callable[[int], Source]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Holds what was seen of a number of streams.

    Args:
        streams: How many.
        latency_ms: From capture to message, of every verdict.
        verdicts_hz: Frames with a verdict a second, of the stream that had fewest.
        analysed_hz: StageLatencies analysed a second, of the stream that had fewest.
        due_hz: How many should have been.
        dropped: Due samples without a verdict, all streams together.
        lost: Streams that were not up all the time.
        own_cores: Cores that the monitor kept busy.
        machine_cores: The same of the whole machine; None where the kernel does not tell.
        memory_mib: Memory of the process; None where the kernel does not tell.
        cores_by: Cores that a part of the program kept busy.
        backbone_busy: The share of the time in which the backbone ran.
    """

    streams: int
    latency_ms: Sequence[float]
    verdicts_hz: float
    analysed_hz: float
    due_hz: float
    dropped: int
    lost: int
    own_cores: float
    machine_cores: float | None
    memory_mib: float | None
    cores_by: Mapping[str, float] = field(default_factory=dict)
    backbone_busy: float = 0.0

    def broken(self, bound_ms: float) -> list[str]:
        """Say why this step does not hold; nothing if it does.

        Args:
            bound_ms: How late 1 % of the verdicts may be.
        """
        reasons = []
        if self.lost:
            reasons.append(f"{self.lost} of {self.streams} streams were not up all the time")
        if self.dropped:
            reasons.append(f"{self.dropped} due samples got no verdict")
        if self.analysed_hz < ENOUGH * self.due_hz:
            reasons.append(f"{self.analysed_hz:.1f} of {self.due_hz:g} samples a second analysed")
        if not self.latency_ms:
            reasons.append("no face got a verdict")
        elif (late := percentiles(self.latency_ms)["p99"]) > bound_ms:
            reasons.append(f"p99 was {late:.0f} ms, over the bound of {bound_ms:g} ms")
        return reasons


def limit(step: Step, cores: int) -> str:
    """Say what a step that broke was short of.

    Args:
        step: It.
        cores: How many this process may use.

    Returns:
        A few words.
    """
    parts = ", ".join(f"{part} {busy:.2f}" for part, busy in step.cores_by.items())
    others = 0.0 if step.machine_cores is None else max(0.0, step.machine_cores - step.own_cores)
    if step.own_cores >= BUSY * cores:
        return f"the CPU: all {cores} cores busy ({parts})"
    if step.own_cores + others >= BUSY * cores:
        return f"the CPU, of which other programs took {others:.2f} of {cores} cores ({parts})"
    if step.backbone_busy >= BUSY:
        return f"the backbone, which ran {step.backbone_busy:.0%} of the time ({parts})"
    return f"not the CPU: {step.own_cores:.2f} of {cores} cores busy ({parts})"


def run_throughput(
    source: str,
    *,
    rate_hz: float | None = None,
    heights: Sequence[int] = (),
    seconds: float = 10.0,
    warmup_s: float = 3.0,
    bound_ms: float = 250.0,
    most: int = 32,
    repeats: int = 2,
    model: Path | None = None,
    engine: str = "auto",
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        source: A video file, which is sent by live cameras; `demo`, or the address of a live stream.
        rate_hz: Verdicts a second and face; None for the model's rate of samples.
        heights: Resolutions at which a file is sent, by the height in pixels; none for `HEIGHTS`.
        seconds: How long each step is measured.
        warmup_s: How long it runs before.
        bound_ms: How late 1 % of the verdicts may be, from capture.
        most: How many streams to try at most.
        repeats: How often the limit is looked for.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: As for `open_engine`.
        json_out: Where to write the record; None for nowhere.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, no stream had a face, or a record cannot be written or read.
        SourceError: The source cannot be meant.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("throughput", json_out=json_out, compare=compare)
    bundle = load_bundle(model)
    if rate_hz is not None and not 0 < rate_hz <= bundle.sample_hz:
        raise RateTooHigh(rate_hz, bundle.sample_hz)
    watched = parse_source(source)
    if heights and watched.kind != "file":
        raise SettingInvalid(
            "--heights", ",".join(map(str, heights)), "only a file can be sent at other sizes; leave it out"
        )
    infer = detector_infer(engine)
    table = new_table("source", ("streams", "verdicts/s each", "p50 ms", "p99 ms", "cores", "MiB"))
    figures: dict[str, Figure] = {}
    found: dict[str, Any] = {}
    notes = _notes(watched)
    with open_engine(bundle, engine) as running:
        for name, source_of in _resolutions(watched, heights or HEIGHTS):
            bench = _Bench(bundle, running, infer, rate_hz, seconds=seconds, warmup_s=warmup_s)
            result = _climb(bench, name, source_of, bound_ms=bound_ms, most=most, repeats=repeats)
            # StageLatencies without a verdict have no face; no samples are a machine that is too slow.
            analysed = any(step.analysed_hz for step in result.steps)
            if analysed and not any(step.latency_ms for step in result.steps):
                raise NothingMeasured(source, "no face that could be scored")
            figures |= result.figures()
            found[name] = result.to_dict(bound_ms)
            table.add_row(name, *result.row())
            notes += result.notes(rate_hz or bundle.sample_hz)
        described = running.describe()
    settings = {
        "source": watched.spec,
        "rate_hz": rate_hz or bundle.sample_hz,
        "seconds": seconds,
        "bound_ms": bound_ms,
        "most": most,
        "repeats": repeats,
    }
    record = new_record(
        "throughput",
        settings=settings,
        figures=figures,
        warmup=f"{warmup_s:g} s a step",
        bundle=bundle,
        engine=described,
        notes=notes,
        resolutions=found,
    )
    output.finish(record, table)
    return 0


def _notes(watched: Source) -> list[str]:
    if watched.kind == "file":
        return ["the cameras run on this machine too: what they take is counted among other programs"]
    if watched.kind == "demo":
        return ["every stream draws its own demo, which costs more than decoding a video: give a file"]
    return []


@contextmanager
def _cameras(path: Path, height: int) -> Iterator[tuple[str, SourceOf]]:
    with Cameras(path, height=height) as cameras:
        footage = cameras.footage
        yield f"{footage.width}x{footage.height} at {footage.fps:g}", cameras.source


def _resolutions(watched: Source, heights: Sequence[int]) -> Iterator[tuple[str, SourceOf]]:
    """Give each kind of stream, with its name, while it is there."""
    if watched.kind != "file":
        if not watched.live:
            raise SettingInvalid("SOURCE", watched.spec, "is not live: give a file, demo or a camera")
        yield watched.spec, lambda number: replace(watched, name=f"{watched.name}-{number + 1}")
        return
    for height in heights:
        with _cameras(Path(watched.address.reveal().removeprefix("file:")), height) as cameras:
            yield cameras


@dataclass
class _Result:
    """All steps at one resolution, and what came of them."""

    name: str
    cores: int
    steps: list[Step] = field(default_factory=list)
    sustained: list[int] = field(default_factory=list)
    limited_by: str = ""

    @property
    def held(self) -> list[Step]:
        """The steps at the number of streams that was sustained in every repetition."""
        return [step for step in self.steps if step.streams == min(self.sustained)]

    def figures(self) -> dict[str, Figure]:
        figures = {f"{self.name} streams": quantity(self.sustained, "streams", better="higher")}
        held = [step for step in self.held if step.latency_ms]
        if held:
            latencies = [step.latency_ms for step in held]
            figures[f"{self.name} capture to message"] = distribution(latencies, "ms")
            figures[f"{self.name} CPU a stream"] = quantity(
                [step.own_cores / step.streams for step in held], "cores"
            )
        return figures

    def row(self) -> tuple[str, ...]:
        count = "/".join(map(str, sorted(set(self.sustained))))
        if not self.held:
            return count, "", "", "", "", ""
        step = self.held[0]
        spread = percentiles(step.latency_ms)
        memory = "" if step.memory_mib is None else f"{step.memory_mib:.0f}"
        return (
            count,
            f"{step.verdicts_hz:.1f}",
            f"{spread['p50']:.0f}",
            f"{spread['p99']:.0f}",
            f"{step.own_cores:.2f}",
            memory,
        )

    def notes(self, rate_hz: float) -> list[str]:
        notes = [f"{self.name}: limited by {self.limited_by}"]
        reached = max((step.verdicts_hz for step in self.held), default=0.0)
        if self.held and reached < ENOUGH * rate_hz:
            notes.append(f"{self.name}: {rate_hz:g} verdicts a second were asked for, {reached:.1f} came")
        return notes

    def to_dict(self, bound_ms: float) -> dict[str, Any]:
        steps = []
        for step in self.steps:
            values = {key: value for key, value in asdict(step).items() if key != "latency_ms"}
            summary = percentiles(step.latency_ms) if step.latency_ms else None
            steps.append({**values, "latency_ms": summary, "broken": step.broken(bound_ms)})
        return {"sustained": self.sustained, "limited_by": self.limited_by, "steps": steps}


def _climb(
    bench: _Bench, name: str, source_of: SourceOf, *, bound_ms: float, most: int, repeats: int
) -> _Result:
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    result = _Result(name, usable_cores())
    broke: Step | None = None

    def holds(count: int) -> bool:
        nonlocal broke
        step = bench.measure([source_of(number) for number in range(count)])
        result.steps.append(step)
        reasons = step.broken(bound_ms)
        if reasons and (broke is None or count <= broke.streams):
            broke = step
        console.print(f"{name}, {count} streams: {'; '.join(reasons) or 'holds'}")
        return not reasons

    for _ in range(repeats):
        # From what was found before on, so that a repetition costs two or three steps.
        result.sustained.append(max_capacity(holds, start=max([1, *result.sustained]), most=most))
    if broke is None:
        result.limited_by = f"--most: {most} streams still held"
    else:
        reasons = "; ".join(broke.broken(bound_ms))
        result.limited_by = f"{limit(broke, result.cores)}; with {broke.streams}: {reasons}"
    return result


class _Bench:
    """Runs real monitors on the streams of one step."""

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

    def measure(self, sources: Sequence[Source]) -> Step:
        """Watch sources for a while.

        Args:
            sources: Live ones, at least one.

        Raises:
            EngineFailed: An analysis broke.
        """
        stopwatch, log = StageTimer(), _Log()
        hello = HelloMessage(version=version(), session=new_session())
        broadcaster = Broadcaster(hello, sinks=[Metrics(), log])
        with ExitStack() as stack:
            batcher = stack.enter_context(Batcher(TimedBackbone(self._engine.features, stopwatch)))

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
            while not log.all_up() and time.monotonic() < deadline and not monitor.finished:
                time.sleep(HEARTBEAT_S)
            monitor.wait(self._warmup_s)
            stopwatch.take()
            before = log.begin()
            with Load() as load:
                monitor.wait(self._seconds)
            after = log.end()
            backbone_ms = stopwatch.take().get("backbone", 0.0)
            memory = memory_mib()
        if monitor.failure is not None:
            raise monitor.failure
        return log.step(before, after, load, backbone_ms, memory, due_hz=self._bundle.sample_hz)


class _Log:
    """Remembers what the monitor says, as a sink of its broadcaster."""

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
                # A face that is gone has no latency: no frame stands behind the message.
                if captured is not None and message.latency_ms is not None:
                    late_ms = 1e3 * (message.time - captured)
                    self._verdicts.append((message.stream, message.pts_s, late_ms))

    def all_up(self) -> bool:
        """Tell whether every stream has had its first sample analysed."""
        _, streams = self._health
        return bool(streams) and all(stream.analysed for stream in streams)

    def begin(self) -> tuple[float, Sequence[StreamHealth]]:
        """Start to count; gives the counters up to now."""
        with self._lock:
            self._measuring = True
            return self._health

    def end(self) -> tuple[float, Sequence[StreamHealth]]:
        """Stop to count; gives the counters up to now."""
        with self._lock:
            self._measuring = False
            return self._health

    def step(
        self,
        before: tuple[float, Sequence[StreamHealth]],
        after: tuple[float, Sequence[StreamHealth]],
        load: Load,
        backbone_ms: float,
        memory: float | None,
        *,
        due_hz: float,
    ) -> Step:
        """Sum up what was counted between two moments."""
        elapsed_s = max(after[0] - before[0], 1e-3)
        earlier = {stream.stream: stream for stream in before[1]}
        analysed, dropped, lost = [], 0, 0
        for stream in after[1]:
            start = earlier[stream.stream]
            analysed.append((stream.analysed - start.analysed) / elapsed_s)
            dropped += stream.dropped - start.dropped
            up = all(each.state in ("live", "no_face") for each in (start, stream))
            lost += not up or stream.reconnects != start.reconnects
        # All faces of a frame share its time, so a frame counts once.
        frames = {(stream, pts_s): late_ms for stream, pts_s, late_ms in self._verdicts}
        each = [sum(name == stream.stream for name, _ in frames) for stream in after[1]]
        return Step(
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
            cores_by={
                part: round(load.by_thread_s[thread] / load.wall_s, 3)
                for thread, part in PARTS.items()
                if thread in load.by_thread_s
            },
            backbone_busy=backbone_ms / 1e3 / load.wall_s,
        )
