"""Cost of a verdict: unmask and the detectors that a user would pick instead, on the same video.

Each method gives as many verdicts per second of video as unmask does, and is measured in a process of its
own, so that its memory can be seen: CPU seconds from one verdict to the next with all threads and decoding
included, and the time from the decoded frame to its verdict. All read the file through the same reader, as
fast as they can. The per-frame detectors are described in `suites/peers/frame_detector.py`. They score one
face; unmask scores all faces of a frame, which count as one verdict.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark_record import (
    Figure,
    Output,
    OutputConfig,
    distribution,
    new_record,
    new_table,
    quantity,
)
from benchmarks.harness.errors import SettingInvalid
from benchmarks.helpers.fresh_process import in_process
from benchmarks.suites.peers.method_run import WARMUP, MethodRun, RunLimits, run_unmask
from runtime.engines.cpu import usable_cores
from runtime.errors import ExtraMissing
from runtime.model.bundle import load_bundle
from streams.input.source import parse_source

UNMASK = "unmask"


@dataclass(frozen=True, kw_only=True)
class PeersConfig(OutputConfig):
    """Settings of `unmask bench peers`.

    Args:
        video: Video file with a face.
        verdicts: Number of verdicts of each method to measure; fewer if the video ends.
        repeats: Number of parts to divide the verdicts into, for the noise.
        threads: CPU threads of each network; None for the cores that this process may use, up to eight.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    video: str
    verdicts: int = 12
    repeats: int = 3
    threads: int | None = None
    model: Path | None = None
    engine: str = "auto"


def run_peers(config: PeersConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: The video has too few verdicts, or a record cannot be written or read.
        ExtraMissing: The extra `bench` is not installed.
        SourceError: The video cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("peers", config)
    if parse_source(config.video).kind != "file":
        raise SettingInvalid("VIDEO", config.video, "is not a file; every method must see the same frames")
    if importlib.util.find_spec("facenet_pytorch") is None:
        raise ExtraMissing("`unmask bench peers`", "facenet-pytorch", "bench")
    bundle = load_bundle(config.model)
    threads = config.threads or min(usable_cores(), 8)
    limits = RunLimits(verdicts=config.verdicts, sample_hz=bundle.sample_hz, threads=threads)
    runs = dict(_runs(config, limits))
    figures = {
        name: figure for method, run in runs.items() for name, figure in _figures(method, run, config.repeats)
    }
    ratios = {
        method: round(_cpu_s(figures, method) / _cpu_s(figures, UNMASK), 1)
        for method in runs
        if method != UNMASK
    }
    record = new_record(
        "peers",
        settings={
            "source": config.video,
            "verdicts": config.verdicts,
            "verdicts_hz": bundle.sample_hz,
            "threads": threads,
            "repeats": config.repeats,
        },
        figures=figures,
        warmup=f"{WARMUP} verdicts",
        bundle=bundle,
        engine=runs[UNMASK].library,
        notes=[
            "the classifiers of the other methods have random weights: compare cost only",
            "frames are read as fast as possible; a method that keeps up with a live camera needs less than "
            f"{1e3 / bundle.sample_hz:.0f} ms a frame",
        ],
        libraries={method: run.library for method, run in runs.items()},
        ratio_cpu_per_verdict=ratios,
    )
    output.finish(record, _table(figures, runs, bundle.sample_hz))
    return 0


def _runs(config: PeersConfig, limits: RunLimits) -> Iterator[tuple[str, MethodRun]]:
    """Run each method in a process of its own; yield its name and measurements."""
    console = Console(stderr=True, highlight=False, markup=False)
    console.print(UNMASK)
    # First, so that a video without a face fails at once.
    yield UNMASK, in_process(run_unmask, config.video, limits, config.model, config.engine)

    from benchmarks.suites.peers.frame_detector import (
        CLASSIFIERS,
        export_classifiers,
        graph_path,
        run_frame_detector,
    )

    with tempfile.TemporaryDirectory(prefix="unmask-peers-") as temporary:
        folder = Path(temporary)
        console.print("exporting the classifiers")
        in_process(export_classifiers, folder)
        for classifier in CLASSIFIERS:
            for library, graph in (("PyTorch", None), ("onnxruntime", graph_path(folder, classifier))):
                name = f"{classifier}, {library}"
                console.print(name)
                yield name, in_process(run_frame_detector, config.video, limits, classifier, graph)


def _figures(method: str, run: MethodRun, repeats: int) -> Iterator[tuple[str, Figure]]:
    parts = [part.tolist() for part in np.array_split(run.cpu_s, repeats) if len(part)]
    waits = [part.tolist() for part in np.array_split(run.latency_ms, repeats) if len(part)]
    cpu_s = [float(np.mean(part)) for part in parts]
    yield f"{method}: CPU a verdict", quantity(cpu_s, "s", n=len(run.cpu_s))
    yield f"{method}: frame to verdict", distribution(waits, "ms")
    if run.memory_mib is not None:
        yield f"{method}: memory", quantity([run.memory_mib], "MiB")


def _cpu_s(figures: Mapping[str, Figure], method: str) -> float:
    return figures[f"{method}: CPU a verdict"].value


def _table(
    figures: Mapping[str, Figure], methods: Sequence[str] | Mapping[str, Any], rate_hz: float
) -> Table:
    table = new_table(
        "method",
        ("CPU s a verdict", f"cores at {rate_hz:g} a second", "p50 ms", "p99 ms", "MiB", "CPU x unmask"),
    )
    for method in methods:
        cpu_s, wait = _cpu_s(figures, method), figures[f"{method}: frame to verdict"].summary
        memory = figures.get(f"{method}: memory")
        table.add_row(
            method,
            f"{cpu_s:.4f}",
            f"{cpu_s * rate_hz:.2f}",
            f"{wait['p50']:.0f}",
            f"{wait['p99']:.0f}",
            "" if memory is None else f"{memory.value:.0f}",
            f"{cpu_s / _cpu_s(figures, UNMASK):.1f}",
        )
    return table
