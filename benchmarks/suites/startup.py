"""Time from the start of `unmask monitor` to its first verdict.

The command is started as a user starts it, with the user's cache of optimised graphs and with an empty one,
and writes its messages to a pipe. Measured are the times until the first message, until the source is live,
and until the first verdict with a score, for which a face must have been seen in several samples. The CPU
seconds are those of the process until then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table, quantity
from benchmarks.harness.errors import NothingMeasured
from benchmarks.helpers.samples import check_video
from runtime.engines.cache import CACHE_VARIABLE
from runtime.engines.factory import open_engine
from runtime.model.bundle import load_bundle
from streams.input.source import parse_source

# Stages in the order of their times.
STAGES = ("first message", "source live", "first verdict", "CPU until then")
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class StartupConfig(OutputConfig):
    """Settings of `unmask bench startup`.

    Args:
        source: Any source of `unmask monitor` with a face from its start.
        repeats: Number of starts with each cache.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    source: str = "demo"
    repeats: int = 3
    model: Path | None = None
    engine: str = "auto"


def run_startup(config: StartupConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: There was no verdict, or a record cannot be written or read.
        SourceError: The source is not valid, or its file contains no video.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("startup", config)
    check_video(parse_source(config.source))
    bundle = load_bundle(config.model)
    # Fills the user's cache.
    with open_engine(bundle, config.engine) as engine:
        described = engine.describe()
    warm = [_start(config, os.environ) for _ in range(config.repeats)]
    cold = []
    for _ in range(config.repeats):
        with tempfile.TemporaryDirectory(prefix="unmask-cache-") as cache:
            cold.append(_start(config, {**os.environ, CACHE_VARIABLE: cache}))
    figures: dict[str, Figure] = {}
    table = new_table("seconds, median", STAGES)
    for name, starts in (("warm cache", warm), ("empty cache", cold)):
        found = {stage: quantity([start[stage] for start in starts], "s") for stage in STAGES}
        figures |= {f"{name}: {stage}": figure for stage, figure in found.items()}
        table.add_row(name, *(f"{figure.value:.2f}" for figure in found.values()))
    record = new_record(
        "startup",
        settings={"source": config.source, "repeats": config.repeats},
        figures=figures,
        warmup="one start of the engine; the files of the program are in the system's cache",
        bundle=bundle,
        engine=described,
        notes=[
            f"a score needs {bundle.min_frames} samples of a face at {bundle.sample_hz:g} a second, "
            f"{(bundle.min_frames - 1) / bundle.sample_hz:.2f} s of a live source"
        ],
    )
    output.finish(record, table)
    return 0


def _start(config: StartupConfig, environment: Mapping[str, str]) -> dict[str, float]:
    """Start the monitor once; return the seconds until each stage."""
    options = ["--jsonl", "-", "--port", "0", "--engine", config.engine]
    if config.model is not None:
        options += ["--model", str(config.model)]
    command = [sys.executable, "-m", "unmask", "monitor", config.source, *options]
    found: dict[str, float] = {}
    started = time.perf_counter()
    with _running(command, environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            elapsed_s = time.perf_counter() - started
            message = json.loads(line)
            for stage in _stages(message):
                found.setdefault(stage, elapsed_s)
            if "first verdict" in found:
                found["CPU until then"] = _cpu_s(process.pid)
                return found
            if elapsed_s > TIMEOUT_S:
                raise NothingMeasured(config.source, f"no face was scored within {TIMEOUT_S:g} s")
    raise NothingMeasured(config.source, "it ended before a face was scored")


def _stages(message: Mapping[str, Any]) -> Iterator[str]:
    yield "first message"
    if message["type"] == "verdict" or message.get("state") == "live":
        yield "source live"
    if message["type"] == "verdict" and message["p_fake"] is not None:
        yield "first verdict"


@contextmanager
def _running(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(environment)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a running process; 0 on systems without /proc."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
