"""Benchmark on an NVIDIA GPU: parity and latency of the engines, limits of the GPU, number of faces.

    unmask bench gpu --crops FACES
    unmask bench gpu --crops FACES --tensorrt-python ./python3.10      # TensorRT 8.6

TensorRT runs in a process of its own (`tensorrt_worker.py`), torch in this one (`torch_variants.py`). Both
take uint8 crops from the host and return float32 features to the host, and are timed by the same function.
The shares are of the GPU's own matrix rate in the same type, measured in the same run; transfers are part of
the calls and not of the limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.hardware.compute_cost import compute_cost_of
from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, quantity
from benchmarks.harness.errors import NoGpu, SettingInvalid
from benchmarks.suites.gpu.timing_series import (
    TimingSeries,
    faces_sustained,
    faces_table,
    figures_of,
    latency_table,
    tensorrt_series,
)
from runtime.engines.tensorrt.driver import Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS, Precision
from runtime.engines.tensorrt.prepared import write_prepared
from runtime.errors import EngineUnavailable
from runtime.files import atomic_path
from runtime.model.bundle import Bundle, load_bundle

RESULTS = Path(__file__).parents[2] / "results"
ROOT = Path(__file__).parents[3]
BATCHES = (1, 8, 32, 64)
WORKER_TIMEOUT_S = 1800.0
WARMUP = "10 calls each, compiling and capturing before them"


@dataclass(frozen=True, kw_only=True)
class GpuConfig(OutputConfig):
    """Settings of `unmask bench gpu`.

    Args:
        crops: Face crops for the parity table, as for `unmask export --check`; None for a portrait.
        tensorrt_python: Python interpreter with TensorRT, or a wrapper script that sets up its environment;
            its `PYTHONPATH` contains only unmask's own folder. None for this interpreter.
        batches: Batch sizes.
        seconds: Time for each measurement.
        compiled: Whether to measure torch.compile, which takes minutes.
        model: Directory of the bundle; None for the bundled model.
        json_out: File to write the record to; None for `benchmarks/results/`, named after the GPU.
        compare: Record of an earlier run to compare with; None for none.
    """

    crops: Path | None = None
    tensorrt_python: Path | None = None
    batches: Sequence[int] = BATCHES
    seconds: float = 2.0
    compiled: bool = True
    model: Path | None = None


def run_gpu(config: GpuConfig) -> int:
    """Measure, print tables and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code: 2 if the verdicts of an engine differ from torch's.

    Raises:
        NoGpu: There is no GPU, or torch cannot use it.
        BenchmarkError: An option is impossible, or a record cannot be written or read.
        UnmaskError: The model or the crops cannot be used.
    """
    if not config.batches or min(config.batches) < 1:
        raise SettingInvalid("--batch", ",".join(map(str, config.batches)), "give sizes from 1 on")
    gpu, torch_version = _require_gpu()
    if config.json_out is None:
        config = replace(config, json_out=results_path(gpu))
    output = Output("gpu", config)
    bundle = load_bundle(config.model)
    console = Console(stderr=True, highlight=False, markup=False)
    with tempfile.TemporaryDirectory(prefix="unmask-gpu-") as scratch:
        folder = Path(scratch)
        crops = folder / "crops.npz"
        save_clips(bundle, config.crops, crops)
        workers = {
            precision: run_worker(bundle, precision, config, crops=crops, folder=folder, console=console)
            for precision in PRECISIONS
        }
        console.print("torch")
        limits, copies, torch_series, failures = measure_torch(bundle, config, console)
        recorded = [path for path, _ in workers.values() if path is not None]
        parity, parity_failure = _compare_verdicts(bundle, config, recorded, folder, console)
    timings = {precision: timing for precision, (_, timing) in workers.items()}
    series = [*tensorrt_series(timings), *torch_series]
    cost = compute_cost_of(bundle.backbone)
    # Samples between two crops have verdicts too.
    crop_hz = bundle.sample_hz / bundle.feature_every
    notes = [f"TensorRT {p} did not run: {t['failed']}" for p, t in timings.items() if "failed" in t]
    record = new_record(
        "gpu",
        settings={"batches": list(config.batches), "seconds": config.seconds, "compile": config.compiled},
        figures=figures_of(series, limits, copies, crop_hz),
        warmup=WARMUP,
        bundle=bundle,
        engine="; ".join(str(t["engine"]) for t in timings.values() if "engine" in t) or "torch alone",
        notes=[*notes, *failures, *parity_failure],
        gpu={**asdict(gpu), "architecture": gpu.architecture, "torch": torch_version},
        backbone={"flop_per_crop": cost.flop_per_item},
        tensorrt={p: {k: v for k, v in t.items() if not k.startswith("ms")} for p, t in timings.items()},
        faces={one.name: faces_sustained(one, crop_hz) for one in series if one.head},
        parity=parity,
    )
    output.finish(record, latency_table(series, cost, limits, config.batches), faces_table(series, crop_hz))
    return 2 if parity_failure else 0


def _require_gpu() -> tuple[Gpu, str]:
    """Return the GPU and the version of torch that can use it."""
    try:
        gpu = probe()
    except EngineUnavailable as error:
        raise NoGpu(error.reason) from error
    import torch

    if not torch.cuda.is_available():
        raise NoGpu("PyTorch cannot use the GPU (is it a build for CPUs?)")
    return gpu, torch.__version__


def _compare_verdicts(
    bundle: Bundle, config: GpuConfig, recorded: Sequence[Path], folder: Path, console: Console
) -> tuple[dict[str, Any], list[str]]:
    """Print the parity table; return its record, and the error if an engine differs."""
    from export.errors import EnginesDiffer
    from export.parity.engine_check import CheckOptions, run_check

    path = folder / "parity.json"
    options = CheckOptions(crops=config.crops, recorded=recorded, json_out=path, tensorrt=False)
    failure = []
    try:
        run_check(bundle, options, step=console.print)
    except EnginesDiffer as error:
        failure = [str(error)]
    return json.loads(path.read_text(encoding="utf-8")), failure


def results_path(gpu: Gpu) -> Path:
    """Return the default path of the record, named after the GPU; the folder is created."""
    name = "-".join("".join(c if c.isalnum() else " " for c in gpu.name.lower()).split())
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"gpu-{name}.json"


def save_clips(bundle: Bundle, crops: Path | None, path: Path) -> None:
    """Write the clips for all engines, the same that the parity table uses.

    Args:
        bundle: Model bundle.
        crops: Face crops; None for a portrait.
        path: Path of the `.npz` file.
    """
    from export.parity.engine_check import checked_clips

    with atomic_path(path) as draft, draft.open("wb") as file:
        np.savez(file, clips=checked_clips(bundle, crops))


def run_worker(
    bundle: Bundle,
    precision: Precision,
    config: GpuConfig,
    *,
    crops: Path,
    folder: Path,
    console: Console,
) -> tuple[Path | None, dict[str, Any]]:
    """Build the TensorRT engines, record their outputs and time them, in a process of its own.

    Args:
        bundle: Model bundle.
        precision: `fp16` or `fp32`.
        config: Settings of the benchmark.
        crops: File with the clips, from `save_clips`.
        folder: Folder for the files of the worker.
        console: Console for progress.

    Returns:
        Path of the recorded outputs and the timings; None and `{"failed": reason}` if it did not run.
    """
    console.print(f"TensorRT, {precision}")
    prepared = write_prepared(bundle, precision, EngineCache())
    recorded, timings = folder / f"{precision}.npz", folder / f"{precision}.json"
    command = [
        str(config.tensorrt_python or sys.executable),
        *("-m", "benchmarks.suites.gpu.tensorrt_worker"),
        *("--prepared", str(prepared), "--precision", precision),
        *("--crops", str(crops), "--recorded", str(recorded), "--json", str(timings)),
        *("--batches", ",".join(map(str, config.batches)), "--seconds", str(config.seconds)),
    ]
    # Another interpreter cannot use the packages of this one.
    inherited = [] if config.tensorrt_python else [os.environ.get("PYTHONPATH")]
    paths = [str(ROOT), *filter(None, inherited)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
            timeout=WORKER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, {"failed": " ".join(str(error).split())}
    if done.returncode != 0 or not timings.is_file():
        lines = done.stderr.strip().splitlines()
        # A crash of native code prints nothing; only the number of its signal is known.
        reason = lines[-1].removeprefix("unmask: ") if lines else f"it exited with code {done.returncode}"
        return None, {"failed": reason}
    return recorded, json.loads(timings.read_text(encoding="utf-8"))


def measure_torch(
    bundle: Bundle, config: GpuConfig, console: Console
) -> tuple[dict[str, Figure], dict[str, Figure], list[TimingSeries], list[str]]:
    """Measure the limits of the GPU and the alternatives in torch.

    Args:
        bundle: Model bundle.
        config: Settings of the benchmark.
        console: Console for progress.

    Returns:
        Matrix rates by type, copy rates by name, the timings, and why alternatives did not run.
    """
    from benchmarks.suites.gpu import torch_variants
    from benchmarks.suites.gpu.tensorrt_worker import call_ms
    from export.parity.restored_detector import restored_detector

    torch_variants.fair_settings()
    limits = {
        name: quantity(rates, "TFLOP/s", better="higher") for name, rates in torch_variants.gemm_rates()
    }
    copies = {name: quantity(rates, "GB/s", better="higher") for name, rates in torch_variants.copy_rates()}
    size, window, dim = bundle.input_size, bundle.window, bundle.feature_dim
    head = restored_detector(bundle).head.cuda()
    head_ms = {
        batch: call_ms(torch_variants.head_call(head, batch, window, dim), config.seconds)
        for batch in config.batches
    }
    series, failures = [], []
    for variant in torch_variants.VARIANTS:
        if variant.mode == "compile" and not config.compiled:
            continue
        console.print(variant.name)
        network = torch_variants.TypedBackbone(
            restored_detector(bundle).backbone.cuda(), variant.dtype
        ).eval()
        try:
            spent = torch_variants.time_variant(
                variant, network, list(config.batches), size, dim, config.seconds
            )
        except RuntimeError as error:
            # Without a compiler or enough memory one row is missing; the run goes on.
            failures.append(f"{variant.name} did not run: {str(error).strip().splitlines()[0]}")
            continue
        series.append(TimingSeries(variant.name, variant.limit, spent, head_ms))
    return limits, copies, series, failures
