"""CPU time, latency and memory by the number of cameras, at several frame sizes, and by the number of faces.

A file is sent by live cameras of another process (`benchmarks/helpers/cameras.py`), and each point is
measured in a fresh process, so that its memory is its own. Frames with several faces show copies of the video
side by side. The first point of each curve that was not sustained is named with its bottleneck, as in
`bench throughput`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table
from benchmarks.harness.errors import NothingMeasured, RecordNotWritten, SettingInvalid
from benchmarks.helpers.cameras import Cameras
from benchmarks.helpers.fresh_process import in_process
from benchmarks.helpers.samples import check_video
from benchmarks.suites.scale.load_curve import CurvePoint, LoadCurve, LoadSetup, measure_load
from benchmarks.suites.scale.plot import write_plot
from benchmarks.suites.throughput.load_step import MIN_ANALYSED
from runtime.engines.factory import open_engine
from runtime.errors import ExtraMissing, os_reason
from runtime.files import check_writable
from runtime.model.bundle import load_bundle
from streams.input.source import parse_source

CAMERAS = (1, 2, 4, 8, 12)
HEIGHTS = (480, 720, 1080)
FACES = (1, 2, 4, 8)
# Frame size of the cameras with several faces.
FACES_HEIGHT = 720
COLUMNS = ("CPU a camera", "cores", "verdicts/s", "faces", "p50 ms", "p99 ms", "MiB", "sustained")


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(OutputConfig):
    """Settings of `unmask bench scale`.

    Args:
        video: Video file with a face in its middle.
        cameras: Numbers of cameras.
        heights: Frame heights in pixels.
        faces: Numbers of faces of one camera; empty to leave this curve out.
        seconds: Length of the measurement of each point.
        warmup_s: Time before each measurement.
        bound_ms: Limit of the 99th percentile of the time from capture to message.
        svg: File to draw the curves into; None for none.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    video: str
    cameras: Sequence[int] = CAMERAS
    heights: Sequence[int] = HEIGHTS
    faces: Sequence[int] = FACES
    seconds: float = 4.0
    warmup_s: float = 1.5
    bound_ms: float = 250.0
    svg: Path | None = None
    model: Path | None = None
    engine: str = "auto"


def run_scale(config: ScaleConfig) -> int:
    """Measure, print a table, write a record and draw the curves.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, no point had a verdict, or a file cannot be written or read.
        ExtraMissing: `svg` is given, and matplotlib is not installed.
        SourceError: The file does not exist or contains no video.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("scale", config)
    _check(config)
    bundle = load_bundle(config.model)
    described = open_engine(bundle, config.engine).describe()
    curves = list(_curves(config))
    steps = [point.step for curve in curves for point in curve.points]
    # On a machine that is too slow for one camera there is no verdict either, but that is a result.
    analysed = any(step.analysed_hz >= MIN_ANALYSED * step.due_hz for step in steps)
    if analysed and not any(step.latency_ms for step in steps):
        raise NothingMeasured(config.video, "no face that could be scored")
    table = new_table("cameras x faces", COLUMNS)
    figures: dict[str, Figure] = {}
    for curve in curves:
        figures |= curve.figures()
        for point in curve.points:
            table.add_row(*curve.row(point))
    record = new_record(
        "scale",
        settings={
            "source": config.video,
            "verdicts_hz": bundle.sample_hz,
            "seconds": config.seconds,
            "bound_ms": config.bound_ms,
        },
        figures=figures,
        warmup=f"{config.warmup_s:g} s a point",
        bundle=bundle,
        engine=described,
        notes=[
            "the cameras run on this machine too; their CPU time is not counted, but they take their share",
            *(curve.first_failure() for curve in curves),
        ],
        curves={f"{curve.name} by {curve.by}": curve.to_dict() for curve in curves},
    )
    output.finish(record, table)
    if config.svg is not None:
        machine = record["machine"]
        try:
            write_plot(curves, config.svg, machine=f"{machine['cpu']}, {machine['cores']} cores")
        except OSError as error:
            raise RecordNotWritten(config.svg, error) from error
    return 0


def _check(config: ScaleConfig) -> None:
    source = parse_source(config.video)
    if source.kind != "file":
        raise SettingInvalid("VIDEO", config.video, "is not a file; only a file can be sent at other sizes")
    check_video(source)
    for option, values, least in (
        ("--cameras", config.cameras, 1),
        ("--heights", config.heights, 1),
        ("--faces", config.faces, 0),
    ):
        if len(values) < least or min(values, default=1) < 1:
            raise SettingInvalid(option, ",".join(map(str, values)), "give numbers from 1 on")
    if config.svg is not None:
        try:
            check_writable(config.svg)
        except OSError as error:
            reason = os_reason(error)
            raise SettingInvalid("--svg", config.svg, f"{reason}; give another path") from error
        if importlib.util.find_spec("matplotlib") is None:
            raise ExtraMissing("`unmask bench scale --svg`", "matplotlib", "bench")


def _curves(config: ScaleConfig) -> Iterator[LoadCurve]:
    for height in config.heights:
        with Cameras(Path(config.video), height=height) as cameras:
            points = [_measure(config, cameras, count, 1) for count in config.cameras]
            name = f"{cameras.footage.width}x{height} at {cameras.footage.fps:g}"
        yield LoadCurve(name=name, by="cameras", points=points, bound_ms=config.bound_ms)
    points = []
    for faces in config.faces:
        with Cameras(Path(config.video), height=FACES_HEIGHT, tiles=faces) as cameras:
            points.append(_measure(config, cameras, 1, faces))
            name = f"{cameras.footage.width}x{FACES_HEIGHT} at {cameras.footage.fps:g}"
    if points:
        yield LoadCurve(name=name, by="faces", points=points, bound_ms=config.bound_ms)


def _measure(config: ScaleConfig, cameras: Cameras, count: int, faces: int) -> CurvePoint:
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    setup = LoadSetup(
        video=Path(config.video),
        model=config.model,
        engine=config.engine,
        seconds=config.seconds,
        warmup_s=config.warmup_s,
    )
    step = in_process(measure_load, setup, cameras.footage, count)
    point = CurvePoint(cameras=count, faces=faces, step=step)
    reasons = "; ".join(step.failures(config.bound_ms)) or "sustained"
    console.print(f"{cameras.footage.height}p, cameras x faces {count} x {faces}: {reasons}")
    return point
