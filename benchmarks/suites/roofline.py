"""Speed of the backbone as a share of the limits of this machine.

The limits are measured in the same run: the fastest float32 matrix product of any installed library, and the
rate of copying memory. A call of the backbone can be no faster than its arithmetic
(`hardware/compute_cost.py`) at the first rate, nor than its memory traffic at the second. The slower of the
two is its limit, and the figure is the share of this limit. The fastest of several calls counts, for limits
and backbone alike, and both are measured in turns, so that other load on the machine slows both.

A share above 100 % of the arithmetic is possible: an engine may use int8, or an algorithm with fewer
operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardware.compute_cost import ComputeCost, compute_cost_of
from benchmarks.hardware.machine_limits import Call, MatrixProduct, copy_gb_per_s, matrix_products, min_call_s
from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table, quantity
from benchmarks.harness.errors import SettingInvalid
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import open_engine
from runtime.model.bundle import Bundle, load_bundle

BATCHES = (1, 2, 4, 8)
WARMUP_CALLS = 2


@dataclass(frozen=True, kw_only=True)
class MachineRates:
    """Rates of the machine in one repetition.

    Args:
        gemm_gflops: 10^9 multiplications and additions per second, float32.
        copy_gb: 10^9 bytes per second, read and written.
    """

    gemm_gflops: float
    copy_gb: float

    def limit_s(self, cost: ComputeCost, batch: int) -> float:
        """Return the shortest possible time of a call."""
        return max(self.gemm_s(cost, batch), cost.moved_bytes(batch) / self.copy_gb / 1e9)

    def gemm_s(self, cost: ComputeCost, batch: int) -> float:
        """Return the shortest possible time of the arithmetic of a call."""
        return cost.flop(batch) / self.gemm_gflops / 1e9


@dataclass
class RooflineShares:
    """Call times and shares of the limits, of one engine at one batch size."""

    call_ms: list[float] = field(default_factory=list)
    of_gemm: list[float] = field(default_factory=list)
    of_limit: list[float] = field(default_factory=list)

    def add(self, call_s: float, cost: ComputeCost, batch: int, rates: MachineRates) -> None:
        """Add one repetition."""
        self.call_ms.append(1e3 * call_s)
        self.of_gemm.append(rates.gemm_s(cost, batch) / call_s)
        self.of_limit.append(rates.limit_s(cost, batch) / call_s)

    def figures(self, name: str) -> dict[str, Figure]:
        """Return the figures under a name."""
        return {
            f"{name}: call": quantity(self.call_ms, "ms"),
            f"{name}: share of GEMM": quantity(self.of_gemm, "x", better="higher"),
            f"{name}: share of limit": quantity(self.of_limit, "x", better="higher"),
        }


@dataclass(frozen=True, kw_only=True)
class RooflineConfig(OutputConfig):
    """Settings of `unmask bench roofline`.

    Args:
        batches: Batch sizes, one after the other.
        engines: Engines, one after the other; see `open_engine`.
        repeats: Number of repetitions of every measurement.
        threads: Threads of engines and limits; None for the cores that this process may use, up to eight.
        model: Directory of the bundle; None for the bundled model.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    batches: Sequence[int] = BATCHES
    engines: Sequence[str] = ("auto",)
    repeats: int = 5
    threads: int | None = None
    model: Path | None = None


def run_roofline(config: RooflineConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, or a record cannot be written or read.
        UnmaskError: The model or an engine cannot be used.
    """
    if not config.batches or min(config.batches) < 1:
        raise SettingInvalid("--batch", ",".join(map(str, config.batches)), "give sizes from 1 on")
    output = Output("roofline", config)
    bundle = load_bundle(config.model)
    cost = compute_cost_of(bundle.backbone)
    threads = config.threads or min(usable_cores(), 8)
    with ExitStack() as stack:
        calls = _calls(stack, bundle, config.engines, config.batches, config.threads)
        fastest, rates, shares = _measure(calls, cost, threads, config.repeats)
    figures = {
        "GEMM float32": quantity(
            _by_repeat([rate.gemm_gflops for rate in rates], config.repeats), "GFLOP/s", better="higher"
        ),
        "copy": quantity(
            _by_repeat([rate.copy_gb for rate in rates], config.repeats), "GB/s", better="higher"
        ),
    }
    table = new_table("engine, batch", ("ms a call", "GFLOP/s", "limited by", "of GEMM", "of limit"))
    for name, share in shares.items():
        figures |= share.figures(name)
        table.add_row(*_row(name, calls[name][0], cost, figures))
    record = new_record(
        "roofline",
        settings={
            "batches": list(config.batches),
            "engines": list(config.engines),
            "repeats": config.repeats,
            "threads": threads,
        },
        figures=figures,
        warmup=f"{WARMUP_CALLS} calls each",
        bundle=bundle,
        engine="; ".join(sorted({name.rpartition(",")[0] for name in calls})),
        notes=[
            f"GEMM limit: {figures['GEMM float32'].value:.1f} GFLOP/s by {fastest.name}; "
            f"copy: {figures['copy'].value:.1f} GB/s; {threads} threads",
            f"backbone at {bundle.input_size} px: {cost.flop_per_item / 1e9:.3f} GFLOP and "
            f"{cost.activation_bytes_per_item / 1e6:.1f} MB a crop, "
            f"{cost.weight_bytes / 1e6:.1f} MB of weights a call",
        ],
        backbone={
            "flop_per_crop": cost.flop_per_item,
            "activation_bytes_per_crop": cost.activation_bytes_per_item,
            "weight_bytes": cost.weight_bytes,
        },
        gemm={"library": fastest.library, "shape": list(fastest.shape), "threads": threads},
        best_share_of_gemm=round(max(figures[f"{name}: share of GEMM"].value for name in calls), 4),
    )
    output.finish(record, table)
    return 0


def _measure(
    calls: Mapping[str, tuple[int, Call]], cost: ComputeCost, threads: int, repeats: int
) -> tuple[MatrixProduct, list[MachineRates], dict[str, RooflineShares]]:
    """Return the fastest matrix product, the rates of the machine at each call, and the shares by call."""
    console = Console(stderr=True, highlight=False, markup=False)
    console.print("looking for the fastest matrix product")
    fastest = fastest_matrix_product(list(matrix_products(threads)))
    copy = copy_gb_per_s(threads)
    rates: list[MachineRates] = []
    shares = {name: RooflineShares() for name in calls}
    for repeat in range(repeats):
        console.print(f"repetition {repeat + 1} of {repeats}")
        copy_gb = copy()
        for name, (batch, call) in calls.items():
            # The product right before each call, as the speed of the machine changes with its other load.
            gflops = fastest.flop / min_call_s(fastest.run) / 1e9
            rates.append(MachineRates(gemm_gflops=gflops, copy_gb=copy_gb))
            shares[name].add(min_call_s(call, min_total_s=0.4), cost, batch, rates[-1])
    return fastest, rates, shares


def fastest_matrix_product(candidates: Sequence[MatrixProduct]) -> MatrixProduct:
    """Run every candidate twice and return the fastest."""

    def rate(product: MatrixProduct) -> float:
        product.run()
        return max(product.flop / min_call_s(product.run) for _ in range(2))

    return max(candidates, key=rate)


def _calls(
    stack: ExitStack, bundle: Bundle, engines: Sequence[str], batches: Sequence[int], threads: int | None
) -> dict[str, tuple[int, Call]]:
    """Open the engines; return warmed-up calls by engine and batch size."""
    rng = np.random.default_rng(0)
    calls: dict[str, tuple[int, Call]] = {}
    for choice in engines:
        engine = stack.enter_context(open_engine(bundle, choice, threads=threads))
        for batch in batches:
            crops = rng.integers(0, 256, (batch, bundle.input_size, bundle.input_size, 3), np.uint8)

            def call(engine=engine, crops=crops) -> object:  # type: ignore[no-untyped-def]
                return engine.features(crops)

            for _ in range(WARMUP_CALLS):
                call()
            calls[f"{engine.describe()}, {batch}"] = (batch, call)
    return calls


def _by_repeat(values: Sequence[float], repeats: int) -> list[float]:
    return [float(np.median(part)) for part in np.array_split(values, repeats)]


def _row(name: str, batch: int, cost: ComputeCost, figures: Mapping[str, Figure]) -> tuple[str, ...]:
    call_ms = figures[f"{name}: call"].value
    of_gemm, of_limit = figures[f"{name}: share of GEMM"].value, figures[f"{name}: share of limit"].value
    return (
        name,
        f"{call_ms:.2f}",
        f"{cost.flop(batch) / call_ms / 1e6:.1f}",
        "arithmetic" if of_limit - of_gemm < 1e-9 else "memory",
        f"{of_gemm:.1%}",
        f"{of_limit:.1%}",
    )
