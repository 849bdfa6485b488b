"""Number of live streams that this machine sustains at a given rate of verdicts, and the bottleneck.

As in MLPerf's server scenario, the load is given. Monitors run on an increasing number of live streams until
a step fails: a due sample got no verdict, too few samples were analysed, or messages were too late. A file is
sent by live cameras of another process (`benchmarks/helpers/cameras.py`) at several resolutions; `demo` and
addresses are opened directly, the same one many times over. Decoding is part of the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table
from benchmarks.harness.errors import NothingMeasured, SettingInvalid
from benchmarks.helpers.cameras import Cameras
from benchmarks.helpers.samples import check_video
from benchmarks.suites.throughput.monitored_load import MonitoredLoad
from benchmarks.suites.throughput.stream_capacity import SourceOf, find_capacity
from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import RateTooHigh
from runtime.model.bundle import load_bundle
from streams.input.source import Source, parse_source

HEIGHTS = (480, 720, 1080)


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig(OutputConfig):
    """Settings of `unmask bench throughput`.

    Args:
        source: Video file, which is sent by live cameras; `demo`, or the address of a live stream.
        rate_hz: Verdicts per second and face; None for the model's sample rate.
        heights: Heights in pixels at which a file is sent; empty for `HEIGHTS`.
        seconds: Length of the measurement of each step.
        warmup_s: Time before each measurement.
        bound_ms: Limit of the 99th percentile of the time from capture to message.
        max_streams: Largest number of streams to measure.
        repeats: Number of repetitions of the search.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    source: str
    rate_hz: float | None = None
    heights: Sequence[int] = ()
    seconds: float = 10.0
    warmup_s: float = 3.0
    bound_ms: float = 250.0
    max_streams: int = 32
    repeats: int = 2
    model: Path | None = None
    engine: str = "auto"


def run_throughput(config: ThroughputConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, no stream had a face, or a record cannot be written or read.
        SourceError: The source is not valid, or its file contains no video.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("throughput", config)
    bundle = load_bundle(config.model)
    if config.rate_hz is not None and not 0 < config.rate_hz <= bundle.sample_hz:
        raise RateTooHigh(config.rate_hz, bundle.sample_hz, f"--rate {config.rate_hz:g}")
    rate_hz = config.rate_hz or bundle.sample_hz
    source = parse_source(config.source)
    if config.heights and source.kind != "file":
        heights = ",".join(map(str, config.heights))
        raise SettingInvalid("--heights", heights, "only a file can be streamed at other sizes; leave it out")
    check_video(source)
    infer = detector_infer(config.engine)
    table = new_table("source", ("streams", "verdicts/s each", "p50 ms", "p90 ms", "p99 ms", "cores", "MiB"))
    figures: dict[str, Figure] = {}
    resolutions: dict[str, Any] = {}
    notes = _notes(source)
    with open_engine(bundle, config.engine) as engine:
        load = MonitoredLoad(
            bundle, engine, infer, config.rate_hz, seconds=config.seconds, warmup_s=config.warmup_s
        )
        for name, source_of in _resolutions(source, config.heights or HEIGHTS):
            capacity = find_capacity(
                load.measure,
                name,
                source_of,
                bound_ms=config.bound_ms,
                max_streams=config.max_streams,
                repeats=config.repeats,
            )
            # Analysed samples without any verdict mean that there is no face. Without analysed samples, the
            # machine is too slow.
            analysed = any(step.analysed_hz for step in capacity.steps)
            if analysed and not any(step.latency_ms for step in capacity.steps):
                raise NothingMeasured(config.source, "no face that could be scored")
            figures |= capacity.figures()
            resolutions[name] = capacity.to_dict(config.bound_ms)
            table.add_row(name, *capacity.row())
            notes += capacity.notes(rate_hz)
        described = engine.describe()
    record = new_record(
        "throughput",
        settings={
            "source": source.spec,
            "rate_hz": rate_hz,
            "seconds": config.seconds,
            "bound_ms": config.bound_ms,
            "max_streams": config.max_streams,
            "repeats": config.repeats,
        },
        figures=figures,
        warmup=f"{config.warmup_s:g} s a step",
        bundle=bundle,
        engine=described,
        notes=notes,
        resolutions=resolutions,
    )
    output.finish(record, table)
    return 0


def _notes(source: Source) -> list[str]:
    if source.kind == "file":
        return ["the cameras run on this machine too; their CPU time counts as that of other programs"]
    if source.kind == "demo":
        return ["every stream renders its own demo, which costs more than decoding a video: give a file"]
    return []


@contextmanager
def _cameras(path: Path, height: int) -> Iterator[tuple[str, SourceOf]]:
    with Cameras(path, height=height) as cameras:
        footage = cameras.footage
        yield f"{footage.width}x{footage.height} at {footage.fps:g}", cameras.source


def _resolutions(source: Source, heights: Sequence[int]) -> Iterator[tuple[str, SourceOf]]:
    """Yield the name and the sources of each resolution, while its cameras run."""
    if source.kind != "file":
        if not source.live:
            raise SettingInvalid("SOURCE", source.spec, "is not live: give a file, demo or a camera")
        yield source.spec, lambda number: replace(source, name=f"{source.name}-{number + 1}")
        return
    for height in heights:
        with _cameras(Path(source.address.reveal().removeprefix("file:")), height) as cameras:
            yield cameras
