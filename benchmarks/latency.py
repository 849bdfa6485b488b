"""What a verdict costs, stage by stage: one stream, one frame after the other.

This is MLPerf's single-stream scenario. A frame's clock starts with the decoding of its packet and stops with
the verdicts on its faces. Only frames with a scored verdict count, after a warm-up. `capture` is the age of a
live frame at its verdict.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from benchmarks.machine import describe_machine
from runtime.analysis import FaceVerdict, StreamAnalysis
from runtime.batcher import Batcher
from runtime.bundle import load_bundle
from runtime.engines import detector_infer, open_engine
from runtime.errors import UnmaskError
from streams.detector import Detector
from streams.errors import EndOfStream
from streams.faces import FaceFinder
from streams.frame import Frame
from streams.reader import Event, TooSlow, open_reader
from streams.source import Source, parse_source

# Of a live source, a face that has not been scored after this long will not be.
PATIENCE_S = 30.0


class NothingMeasured(UnmaskError, ValueError):
    """Says that a source gave no verdict to measure.

    Args:
        source: As shown to people.
        reason: Why, as far as it is known.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: nothing to measure ({self.reason}); give a video with a face, or demo"


class RecordNotWritten(UnmaskError, OSError):
    """Says that a record cannot be written where it was wanted.

    Args:
        path: Where.
        cause: What the system said.
    """

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: cannot be written ({self.strerror}); give another path with --json"


@dataclass
class Samples:
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

    def summary(self) -> dict[str, dict[str, float]]:
        """Give mean, p50, p90, p99 and max of each stage, in milliseconds."""
        return {stage: percentiles(values) for stage, values in self.stages.items()}


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Summarise a distribution.

    Args:
        values: At least one.

    Returns:
        `mean`, `p50`, `p90`, `p99` (linear between the two nearest values) and `max`.
    """
    series = np.asarray(list(values), np.float64)
    p50, p90, p99 = np.percentile(series, [50, 90, 99]).tolist()
    figures = {"mean": float(series.mean()), "p50": p50, "p90": p90, "p99": p99, "max": float(series.max())}
    return {name: round(figure, 3) for name, figure in figures.items()}


def run_latency(
    source: str,
    *,
    samples: int,
    warmup: int,
    model: Path | None = None,
    engine: str = "auto",
    json_out: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        source: `demo`, a video file, or anything else that can be watched.
        samples: How many frames with a verdict to measure.
        warmup: How many to leave out before.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: `auto`, `onnxruntime` or `tensorrt`.
        json_out: Where to write the record; None for nowhere.

    Returns:
        The exit code.

    Raises:
        NothingMeasured: The source has no face that could be scored.
        RecordNotWritten: The record cannot be written.
        SourceError: The source cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    if json_out is not None:
        # Found out before anything is measured.
        try:
            json_out.open("a").close()
        except OSError as error:
            raise RecordNotWritten(json_out, error) from error
    record = measure_latency(parse_source(source), samples=samples, warmup=warmup, model=model, engine=engine)
    _print(record)
    if json_out is not None:
        json_out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_latency(
    source: Source, *, samples: int, warmup: int, model: Path | None = None, engine: str = "auto"
) -> dict[str, Any]:
    """Measure the stages of one stream.

    Args:
        source: What to analyse; a file that is too short is analysed again from its start.
        samples: How many frames with a verdict to measure.
        warmup: How many to leave out before.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: `auto`, `onnxruntime` or `tensorrt`.

    Returns:
        The record as JSON values: what was measured on what, and `stages_ms` with the figures of each stage.

    Raises:
        NothingMeasured: The source has no face that could be scored.
        SourceError: The source cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    bundle = load_bundle(model)
    infer = detector_infer(engine)
    collected = Samples(warmup)
    with (
        open_engine(bundle, engine) as running,
        Batcher(running.features) as batcher,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("measuring", total=warmup + samples)
        analysis = StreamAnalysis(bundle, head=running, features=batcher, finder=FaceFinder(Detector(infer)))
        for frame in _frames(source, bundle.sample_hz, collected):
            started = time.perf_counter()
            verdicts = [verdict for verdict in analysis.analyse(frame) if verdict.p_fake is not None]
            spent_ms = 1e3 * (time.perf_counter() - started)
            if verdicts:
                collected.add(_stages(frame, verdicts[0], spent_ms), faces=len(verdicts))
                progress.update(task, completed=collected.scored)
            if len(collected.faces) == samples:
                break
        described = running.describe()
    return {
        "benchmark": "latency",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "model": {"name": bundle.name, "digest": bundle.digest, "weights": bundle.weights},
        "engine": described,
        "source": source.spec,
        "warmup": warmup,
        "n": len(collected.faces),
        "faces": round(float(np.mean(collected.faces)), 2),
        "stages_ms": collected.summary(),
    }


def _stages(frame: Frame, verdict: FaceVerdict, analysis_ms: float) -> dict[str, float]:
    spent = verdict.timings
    assert spent is not None  # a scored verdict has them
    stages = {
        "decode": spent.decode,
        "detect": spent.detect,
        "crop": spent.crop,
        "backbone": spent.backbone,
        "head": spent.head,
        "total": frame.decode_ms + analysis_ms,
    }
    if frame.captured is not None:
        stages["capture"] = spent.total
    return stages


def _frames(source: Source, sample_hz: float, collected: Samples) -> Iterator[Frame]:
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


def _print(record: Mapping[str, Any]) -> None:
    machine = record["machine"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("ms", no_wrap=True)
    figures = ("p50", "p90", "p99", "max", "mean")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    for stage, measured in record["stages_ms"].items():
        style = "bold" if stage == "total" else ""
        table.add_row(Text(stage, style), *(Text(f"{measured[figure]:.2f}", style) for figure in figures))
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}"
    )
    console.print(f"Python {machine['python']}, {libraries}")
    console.print(f"model {record['model']['name']} on {record['engine']}")
    console.print(
        f"{record['source']}: {record['n']} frames after {record['warmup']} to warm up, "
        f"{record['faces']:g} faces each"
    )
    console.print(table)
