"""Measurement of one method: CPU time, latency and memory of its verdicts. Imports no torch by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hardware.cpu_load import memory_mib
from benchmarks.harness.errors import NothingMeasured
from benchmarks.helpers.samples import file_samples
from runtime.engines.factory import detector_infer, open_engine
from runtime.model.bundle import load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import StreamAnalysis
from streams.faces.detector import Detector
from streams.faces.finder import FaceFinder
from streams.input.frame import Frame
from streams.input.source import Source, parse_source

# Verdicts to leave out first: libraries allocate and choose kernels in their first calls.
WARMUP = 3

# Whether a verdict was reached for the face of a frame.
GiveVerdict = Callable[[Frame], bool]


@dataclass(frozen=True, kw_only=True)
class MethodRun:
    """Measurements of one method, in a process of its own.

    Args:
        cpu_s: CPU seconds from each verdict to the next, all threads, decoding included.
        latency_ms: Milliseconds from the decoded frame to its verdict.
        memory_mib: Resident memory of the process at the end; None on systems without /proc.
        library: Library and device that ran the network.
    """

    cpu_s: tuple[float, ...]
    latency_ms: tuple[float, ...]
    memory_mib: float | None
    library: str


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of a measurement.

    Args:
        verdicts: Number of verdicts to measure; fewer if the video ends.
        sample_hz: Verdicts per second of video.
        threads: CPU threads of the network.
    """

    verdicts: int
    sample_hz: float
    threads: int


def run_unmask(video: str, limits: RunLimits, model: Path | None, engine: str) -> MethodRun:
    """Measure unmask: face detector, tracker, backbone, temporal residuals and head.

    Args:
        video: Video file.
        limits: Limits of the measurement.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.

    Raises:
        NothingMeasured: The video has too few verdicts.
        SourceError: The video cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    source = parse_source(video)
    bundle = load_bundle(model)
    with ExitStack() as stack:
        running = stack.enter_context(open_engine(bundle, engine, threads=limits.threads))
        batcher = stack.enter_context(Batcher(running.features))
        finder = FaceFinder(Detector(detector_infer(engine)))
        analysis = StreamAnalysis(bundle, head=running, features=batcher, finder=finder)

        def give_verdict(frame: Frame) -> bool:
            return any(verdict.p_fake is not None for verdict in analysis.analyse(frame))

        return measure(source, give_verdict, limits, running.describe())


def measure(source: Source, give_verdict: GiveVerdict, limits: RunLimits, library: str) -> MethodRun:
    """Run a method over the samples of a file and measure its verdicts after the warm-up.

    Args:
        source: A file.
        give_verdict: The method.
        limits: Limits of the measurement.
        library: Library and device that run the network.

    Raises:
        NothingMeasured: The file has no verdict after the warm-up.
        SourceError: The file cannot be read.
    """
    cpu_s, latency_ms = measure_verdicts(
        file_samples(source, limits.sample_hz), give_verdict, limits.verdicts
    )
    if not cpu_s:
        raise NothingMeasured(source.spec, f"fewer than {WARMUP + 1} frames with a face that could be scored")
    return MethodRun(
        cpu_s=tuple(cpu_s), latency_ms=tuple(latency_ms), memory_mib=memory_mib(), library=library
    )


def measure_verdicts(
    frames: Iterable[Frame],
    give_verdict: GiveVerdict,
    verdicts: int,
    *,
    cpu_clock: Callable[[], float] = time.process_time,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Return the CPU seconds from each verdict to the next, and the latency of each in milliseconds.

    The cost of a frame without a verdict belongs to the next verdict.

    Args:
        frames: Samples.
        give_verdict: The method.
        verdicts: Largest number of verdicts to measure.
        cpu_clock: CPU seconds of this process.
        clock: Monotonic clock in seconds.
    """
    cpu_s: list[float] = []
    latency_ms: list[float] = []
    reached, last_s = 0, 0.0
    for frame in frames:
        started = clock()
        if not give_verdict(frame):
            continue
        ended, now_s = clock(), cpu_clock()
        reached += 1
        if reached > WARMUP:
            cpu_s.append(now_s - last_s)
            latency_ms.append(1e3 * (ended - started))
        last_s = now_s
        if len(cpu_s) == verdicts:
            break
    return cpu_s, latency_ms
