"""Everything that a GPU is to show, in one run: engines built, verdicts compared, latency, limits, faces.

    unmask bench gpu --crops FACES
    unmask bench gpu --crops FACES --tensorrt-python ./python3.10      # TensorRT 8.6

TensorRT runs in a process of its own (`gpu_worker.py`), torch in this one (`gpu_torch.py`). Both take uint8
crops from the host and give float32 features to the host, and are timed by the same function. The shares are
of the GPU's own matrix rate in the same type, measured in the same run; transfers are in the calls and not in
the limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.hardware.compute_cost import ComputeCost, compute_cost_of
from benchmarks.harness.errors import BenchmarkError, SettingInvalid
from benchmarks.harness.record import Figure, Output, distribution, new_record, new_table, quantity
from runtime.engines.tensorrt.driver import Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS
from runtime.engines.tensorrt.prepared import write_prepared
from runtime.errors import EngineUnavailable
from runtime.files import atomic_path
from runtime.model.bundle import Bundle, load_bundle

RESULTS = Path(__file__).parents[2] / "results"
ROOT = Path(__file__).parents[3]
BATCHES = (1, 8, 32, 64)
VERDICT_HZ = 10.0
WORKER_TIMEOUT_S = 1800.0
WARMUP = "10 calls each, compiling and capturing before them"


class NoGpu(BenchmarkError):
    """Says that there is nothing to measure on.

    Args:
        reason: Why, without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"`unmask bench gpu` needs an NVIDIA GPU: {self.reason}; run it on a machine that has one"


@dataclass(frozen=True)
class TimingSeries:
    """Holds the timings of one way to run the model.

    Args:
        name: For people.
        limit: The type whose matrix rate bounds it: `float32`, `float16` or `bfloat16`.
        backbone: Milliseconds of each call, by batch size.
        head: Likewise; empty if it was not measured.
    """

    name: str
    limit: str
    backbone: Mapping[int, Sequence[float]]
    head: Mapping[int, Sequence[float]]


def run_gpu(
    *,
    crops: Path | None = None,
    tensorrt_python: Path | None = None,
    batches: Sequence[int] = BATCHES,
    seconds: float = 2.0,
    compiled: bool = True,
    model: Path | None = None,
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print tables and write a record.

    Args:
        crops: Face crops for the parity table, as `export --check` takes them; None for a portrait.
        tensorrt_python: The Python that has TensorRT, or a script that starts it with what it needs in its
            environment; of this one's `PYTHONPATH` it gets unmask's own folder alone. None for this one.
        batches: Sizes of the batch.
        seconds: For each measurement.
        compiled: Whether to measure torch.compile, which takes minutes.
        model: The bundle's directory; None for the one that ships with unmask.
        json_out: Where to write the record; None for `benchmarks/results/`, named after the GPU.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code: 2 if an engine's verdicts are not torch's.

    Raises:
        NoGpu: There is none, or torch does not reach it.
        BenchmarkError: An option is impossible, or a record cannot be written or read.
        UnmaskError: The model or the crops cannot be used.
    """
    if not batches or min(batches) < 1:
        raise SettingInvalid("--batch", ",".join(map(str, batches)), "give sizes from 1 on")
    try:
        gpu = probe()
    except EngineUnavailable as error:
        raise NoGpu(error.reason) from error
    import torch

    if not torch.cuda.is_available():
        raise NoGpu("PyTorch does not reach the GPU (is it a build for CPUs?)")
    from export.errors import EnginesDiffer
    from export.parity.engine_check import CheckOptions, run_check

    json_out = results_path(gpu) if json_out is None else json_out
    output = Output("gpu", json_out=json_out, compare=compare)
    bundle = load_bundle(model)
    console = Console(stderr=True, highlight=False, markup=False)
    with tempfile.TemporaryDirectory(prefix="unmask-gpu-") as scratch:
        folder = Path(scratch)
        samples = folder / "samples.npz"
        save_samples(bundle, crops, samples)
        workers = {
            precision: run_worker(
                bundle,
                precision,
                python=tensorrt_python,
                samples=samples,
                folder=folder,
                batches=batches,
                seconds=seconds,
                console=console,
            )
            for precision in PRECISIONS
        }
        console.print("torch")
        limits, copies, series, absent = measure_torch(
            bundle, batches, seconds, compiled=compiled, console=console
        )
        recorded = [path for path, _ in workers.values() if path is not None]
        failed = ""
        parity = folder / "parity.json"
        try:
            run_check(
                bundle,
                CheckOptions(crops=crops, recorded=recorded, json_out=parity, tensorrt=False),
                step=console.print,
            )
        except EnginesDiffer as error:
            failed = str(error)
        compared = json.loads(parity.read_text(encoding="utf-8"))
    found = {precision: timings for precision, (_, timings) in workers.items()}
    series = [*tensorrt_series(found), *series]
    work = compute_cost_of(bundle.backbone)
    figures = figures_of(series, limits, copies)
    notes = [f"TensorRT {p} did not run: {t['failed']}" for p, t in found.items() if "failed" in t] + absent
    record = new_record(
        "gpu",
        settings={"batches": list(batches), "seconds": seconds, "compile": compiled},
        figures=figures,
        warmup=WARMUP,
        bundle=bundle,
        engine="; ".join(str(t["engine"]) for t in found.values() if "engine" in t) or "torch alone",
        notes=notes + ([failed] if failed else []),
        gpu={**asdict(gpu), "architecture": gpu.architecture, "torch": torch.__version__},
        backbone={"flop_per_crop": work.flop_per_item},
        tensorrt={p: {k: v for k, v in t.items() if not k.startswith("ms")} for p, t in found.items()},
        faces_at_10_hz={one.name: faces_carried(one) for one in series if one.head},
        parity=compared,
    )
    output.finish(record, latency_table(series, work, limits, batches), faces_table(series))
    return 2 if failed else 0


def results_path(gpu: Gpu) -> Path:
    """Name the record after the GPU: `benchmarks/results/gpu-nvidia-h200.json`; the folder is made."""
    name = "-".join("".join(c if c.isalnum() else " " for c in gpu.name.lower()).split())
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"gpu-{name}.json"


def save_samples(bundle: Bundle, crops: Path | None, path: Path) -> None:
    """Write the clips that every engine answers, the same that the parity table reads.

    Args:
        bundle: The model.
        crops: As for `run_gpu`.
        path: The `.npz` file.
    """
    from export.parity.engine_check import checked_clips

    with atomic_path(path) as draft, draft.open("wb") as file:
        np.savez(file, clips=checked_clips(bundle, crops))


def run_worker(
    bundle: Bundle,
    precision: Any,
    *,
    python: Path | None,
    samples: Path,
    folder: Path,
    batches: Sequence[int],
    seconds: float,
    console: Console,
) -> tuple[Path | None, dict[str, Any]]:
    """Have TensorRT build, answer and be timed in its own process.

    Args:
        bundle: The model.
        precision: `fp16` or `fp32`.
        python: Its interpreter; None for this one.
        samples: The clips to answer.
        folder: For its files.
        batches: Sizes of the batch.
        seconds: For each.
        console: Is told what is being done.

    Returns:
        The recorded outputs and the timings; None and `{"failed": reason}` if it did not run.
    """
    console.print(f"TensorRT, {precision}")
    prepared = write_prepared(bundle, precision, EngineCache())
    recorded, timings = folder / f"{precision}.npz", folder / f"{precision}.json"
    command = [
        str(python or sys.executable),
        *("-m", "benchmarks.suites.gpu.tensorrt_worker"),
        *("--prepared", str(prepared), "--precision", precision),
        *("--samples", str(samples), "--recorded", str(recorded), "--json", str(timings)),
        *("--batches", ",".join(map(str, batches)), "--seconds", str(seconds)),
    ]
    # Another Python cannot use what this one has installed.
    inherited = [] if python else [os.environ.get("PYTHONPATH")]
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
        said = done.stderr.strip().splitlines()
        # A crash of native code leaves no line, but the number of its signal.
        reason = said[-1].removeprefix("unmask: ") if said else f"it ended with {done.returncode}"
        return None, {"failed": reason}
    return recorded, json.loads(timings.read_text(encoding="utf-8"))


def measure_torch(
    bundle: Bundle, batches: Sequence[int], seconds: float, *, compiled: bool, console: Console
) -> tuple[dict[str, Figure], dict[str, Figure], list[TimingSeries], list[str]]:
    """Measure the GPU's limits and the alternatives in torch.

    Args:
        bundle: The model.
        batches: Sizes of the batch.
        seconds: For each.
        compiled: Whether to measure torch.compile.
        console: Is told what is being done.

    Returns:
        Matrix rates by type, copy rates by name, the timings, and which alternatives did not run and why.
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
        batch: call_ms(torch_variants.head_call(head, batch, window, dim), seconds) for batch in batches
    }
    series, absent = [], []
    for variant in torch_variants.VARIANTS:
        if variant.how == "compile" and not compiled:
            continue
        console.print(variant.name)
        network = torch_variants.TypedBackbone(
            restored_detector(bundle).backbone.cuda(), variant.dtype
        ).eval()
        try:
            spent = torch_variants.time_variant(variant, network, list(batches), size, dim, seconds)
        except RuntimeError as error:
            # No compiler on this machine, no memory: one row less, not the whole run.
            absent.append(f"{variant.name} did not run: {str(error).strip().splitlines()[0]}")
            continue
        series.append(TimingSeries(variant.name, variant.limit, spent, head_ms))
    return limits, copies, series, absent


def tensorrt_series(found: Mapping[Any, Mapping[str, Any]]) -> list[TimingSeries]:
    """Read the workers' timings.

    Args:
        found: By precision, what a worker wrote, or why it did not run.

    Returns:
        With and without CUDA graphs, of every precision that ran.
    """
    series = []
    for precision, timings in found.items():
        if "failed" in timings:
            continue
        limit = "float16" if precision == "fp16" else "float32"
        for key, how in (("ms", ""), ("ms_without_graphs", " without CUDA graphs")):
            spent = {
                part: {int(batch): values for batch, values in timings[key][part].items()}
                for part in ("backbone", "head")
            }
            series.append(TimingSeries(f"TensorRT {precision}{how}", limit, spent["backbone"], spent["head"]))
    return series


def faces_carried(series: TimingSeries, rate_hz: float = VERDICT_HZ) -> float:
    """Say how many faces one GPU carries: each verdict is one crop through the backbone and one window more.

    Args:
        series: With timings of the head.
        rate_hz: Verdicts a second and face.

    Returns:
        Faces, at the batch size that carries most; calls one after the other, transfers included.
    """
    return max(
        batch
        / (float(np.median(series.backbone[batch])) + float(np.median(series.head[batch])))
        * 1e3
        / rate_hz
        for batch in series.backbone
        if batch in series.head
    )


def figures_of(
    series: Sequence[TimingSeries], limits: Mapping[str, Figure], copies: Mapping[str, Figure]
) -> dict[str, Figure]:
    """Give every measured quantity its name."""
    figures = {f"GEMM {name}": figure for name, figure in limits.items()}
    figures |= {f"copy {name}": figure for name, figure in copies.items()}
    for one in series:
        for part, spent in (("backbone", one.backbone), ("head", one.head)):
            for batch, values in spent.items():
                figures[f"{one.name}, {part}, {batch}"] = distribution([values], "ms")
        if one.head:
            figures[f"{one.name}, faces at {VERDICT_HZ:g} Hz"] = quantity(
                [faces_carried(one)], "faces", better="higher"
            )
    return figures


def latency_table(
    series: Sequence[TimingSeries], work: ComputeCost, limits: Mapping[str, Figure], batches: Sequence[int]
) -> Any:
    """Make the table of the backbone: p50 and p99 by batch size, share of the limit and ratio at the largest.

    Args:
        series: The first is what the others are held against.
        work: Of the backbone.
        limits: Matrix rates by type.
        batches: Sizes of the batch.
    """
    table = new_table(
        "backbone, ms a call",
        (*(f"batch {batch} p50 / p99" for batch in batches), "crops/s", "of GEMM", "times as long"),
    )
    most = max(batches)
    for one in series:
        p50, p99 = (
            {batch: float(np.percentile(values, share)) for batch, values in one.backbone.items()}
            for share in (50, 99)
        )
        flops = work.flop(most) / (p50[most] / 1e3)
        table.add_row(
            one.name,
            *(f"{p50[batch]:.2f} / {p99[batch]:.2f}" for batch in batches),
            f"{1e3 * most / p50[most]:.0f}",
            f"{flops / (limits[one.limit].value * 1e12):.1%}",
            f"{p50[most] / float(np.median(series[0].backbone[most])):.2f}",
        )
    return table


def faces_table(series: Sequence[TimingSeries]) -> Any:
    """Make the table of faces that one GPU carries."""
    table = new_table(f"faces at {VERDICT_HZ:g} verdicts a second", ("faces",))
    for one in series:
        if one.head:
            table.add_row(one.name, f"{faces_carried(one):.0f}")
    return table
