"""CPU time of a verdict: the original method and unmask on the same video, in the same run.

Between the two are the obvious first steps, so that the gain of each is visible. Each line is one method, and
its cost has two parts: decoding and faces, and the network.

    original                       dlib in each of 80 frames, the clip of 80 through PyTorch
    without dlib                   the same, with the faces of unmask's detector and tracker
    without dlib, torch.compile    the same, with the network compiled
    without dlib, onnxruntime      the same, with the clip through onnxruntime instead
    feature buffer alone           the original, but only the new frame goes through dlib and ResNeXt-50
    unmask                         all of it: its own face detection, smaller head, feature buffer and engine

The methods with clips of 80 frames are charged for those 80 frames. unmask is charged for everything between
two verdicts, decoding of frames between samples included, at the model's sample rate. CPU time is that of the
whole process, all threads. If a video shows several faces, the original scores the first; unmask is charged
for all of them, and they count as one verdict.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark_record import Output, OutputConfig, new_record, new_table
from benchmarks.harness.errors import SettingInvalid
from benchmarks.helpers.samples import check_video
from benchmarks.suites.baseline.method_cost import MethodBench, MethodCost
from runtime.engines.factory import detector_infer, open_engine
from runtime.model.bundle import load_bundle
from streams.input.source import parse_source


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(OutputConfig):
    """Settings of `unmask bench baseline`.

    Args:
        video: Video file of at least 80 frames, with a face.
        repeats: Number of repetitions; of dlib, the number of parts that the frames are divided into.
        compiled: Whether to measure `torch.compile` too, which takes a minute to compile.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    video: str
    repeats: int = 3
    compiled: bool = True
    model: Path | None = None
    engine: str = "auto"


def run_baseline(config: BaselineConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: The video is too short or has no face, or a record cannot be written or read.
        ModuleNotFoundError: The extra `bench` is not installed.
        SourceError: The video cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("baseline", config)
    source = parse_source(config.video)
    if source.kind != "file":
        raise SettingInvalid("VIDEO", config.video, "is not a file; the original method has no other input")
    check_video(source)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    bundle = load_bundle(config.model)
    infer = detector_infer(config.engine)
    bench = MethodBench(source, bundle, config.repeats, console.print)
    with open_engine(bundle, config.engine) as engine:
        # Measured first, so that a video without a face fails at once.
        unmask = bench.unmask(engine, infer)
        described = engine.describe()
    methods = [*bench.originals(infer, compiled=config.compiled), unmask]
    record = new_record(
        "baseline",
        settings={"source": source.spec, "repeats": config.repeats, "sample_hz": bundle.sample_hz},
        figures={name: figure for method in methods for name, figure in method.figures().items()},
        warmup="one run of each network; unmask from its first verdict on",
        bundle=bundle,
        engine=described,
        notes=bench.notes,
        video={"width": bench.width, "height": bench.height, "fps": round(float(bench.fps), 3)},
        dlib_faces=bench.dlib_faces,
    )
    output.finish({**record, **_ratios(methods[0], unmask)}, _table(methods))
    return 0


def _ratios(original: MethodCost, unmask: MethodCost) -> dict[str, float]:
    return {
        "ratio_cpu_per_video_second": _ratio(
            original.per_verdict_s * original.verdicts_hz, unmask.per_verdict_s * unmask.verdicts_hz
        ),
        "ratio_cpu_network": _ratio(original.per_network_s, unmask.per_network_s),
        "ratio_cpu_per_verdict": _ratio(original.per_verdict_s, unmask.per_verdict_s),
    }


def _table(methods: Sequence[MethodCost]) -> Table:
    columns = ("faces", "network", "a verdict", "verdicts/s", "a second of video", "network x", "verdict x")
    table = new_table("CPU seconds", columns)
    original = methods[0]
    for method in methods:
        table.add_row(
            method.name,
            f"{statistics.median(method.faces_s):.4f}",
            f"{method.per_network_s:.4f}",
            f"{method.per_verdict_s:.4f}",
            f"{method.verdicts_hz:.2f}",
            f"{method.per_verdict_s * method.verdicts_hz:.3f}",
            f"{_ratio(original.per_network_s, method.per_network_s):.1f}",
            f"{_ratio(original.per_verdict_s, method.per_verdict_s):.1f}",
        )
    return table


def _ratio(original_s: float, ours_s: float) -> float:
    return round(original_s / ours_s, 1)
