"""Speed of the backbone as a share of the limits of this machine.

The limits are measured in the same run: the fastest matrix product of any installed library, in float32 and
in int8, and the rate of copying memory. A call of the backbone can be no faster than its arithmetic
(`hardware/compute_cost.py`) at the first rate, nor than its memory traffic at the second. The slower of the
two is its limit, and the figure is the share of this limit. Each engine is compared with the limit of its
own arithmetic. The fastest of several calls counts, for limits and backbone alike, and both are measured in
turns, so that other load on the machine slows both; the limit is that of the repetition's fastest product.

An engine that computes in int8 is followed by onnxruntime in float32. A share above 100 % of the
arithmetic is possible with an algorithm that needs fewer operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardware.compute_cost import ComputeCost, compute_cost_of
from benchmarks.hardware.machine_limits import (
    VALUE_BYTES,
    Arithmetic,
    Call,
    MatrixProduct,
    copy_gb_per_s,
    fastest_matrix_product,
    matrix_products,
    min_call_s,
)
from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table, quantity
from benchmarks.harness.errors import SettingInvalid
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.model.bundle import Bundle, load_bundle

BATCHES = (1, 2, 4, 8)
WARMUP_CALLS = 2


@dataclass(frozen=True, kw_only=True)
class MachineRates:
    """Rates of the machine in one repetition, for one arithmetic.

    Args:
        arithmetic: Type of the values that are multiplied.
        gemm_gops: 10^9 multiplications and additions of this type per second.
        copy_gb: 10^9 bytes per second, read and written.
    """

    arithmetic: Arithmetic
    gemm_gops: float
    copy_gb: float

    def limit_s(self, cost: ComputeCost, batch: int) -> float:
        """Return the shortest possible time of a call."""
        moved = cost.moved_bytes(batch, value_bytes=VALUE_BYTES[self.arithmetic])
        return max(self.gemm_s(cost, batch), moved / self.copy_gb / 1e9)

    def gemm_s(self, cost: ComputeCost, batch: int) -> float:
        """Return the shortest possible time of the arithmetic of a call."""
        return cost.flop(batch) / self.gemm_gops / 1e9


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
            f"{name}: share of its arithmetic": quantity(self.of_gemm, "x", better="higher"),
            f"{name}: share of its limit": quantity(self.of_limit, "x", better="higher"),
        }


@dataclass(frozen=True, kw_only=True)
class _EngineCall:
    """Warmed-up call of an engine's backbone."""

    engine: str
    arithmetic: Arithmetic
    batch: int
    run: Call

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.batch}"


@dataclass(frozen=True, kw_only=True)
class RooflineConfig(OutputConfig):
    """Settings of `unmask bench roofline`.

    Args:
        batches: Batch sizes, one after the other.
        engines: Engines, one after the other; see `open_engine`. One in int8 adds float32.
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
        calls = [
            call
            for engine in _engines(stack, bundle, config)
            for call in _calls(engine, bundle, config.batches)
        ]
        products, figures, shares = _measure(calls, cost, threads, config.repeats)
    table = new_table(
        "engine, batch", ("ms a call", "Gop/s", "limited by", "of its arithmetic", "of its limit")
    )
    for call in calls:
        figures |= shares[call.name].figures(call.name)
        table.add_row(*_row(call, cost, figures))
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
        engine="; ".join(dict.fromkeys(call.engine for call in calls)),
        notes=_notes(bundle, cost, figures, products, threads),
        backbone={
            "flop_per_crop": cost.flop_per_item,
            "activation_bytes_per_crop": cost.activation_bytes_per_item,
            "weight_bytes": cost.weight_bytes,
        },
        gemm={
            kind: {"library": product.library, "shape": list(product.shape), "threads": threads}
            for kind, product in products.items()
        },
        best_share_of_arithmetic=_best_shares(calls, figures),
    )
    output.finish(record, table)
    return 0


def _engines(stack: ExitStack, bundle: Bundle, config: RooflineConfig) -> Iterator[Engine]:
    """Open the engines; yield each, and after one in int8 onnxruntime in float32."""
    for choice in config.engines:
        engine = stack.enter_context(open_engine(bundle, choice, threads=config.threads))
        yield engine
        if _arithmetic(engine) == "int8":
            yield stack.enter_context(OnnxRuntimeEngine(bundle, threads=config.threads, precision="fp32"))


def _arithmetic(engine: Engine) -> Arithmetic:
    return "int8" if getattr(engine, "precision", "fp32") == "int8" else "float32"


def _measure(
    calls: Sequence[_EngineCall], cost: ComputeCost, threads: int, repeats: int
) -> tuple[dict[Arithmetic, MatrixProduct], dict[str, Figure], dict[str, RooflineShares]]:
    """Return the fastest matrix products, the limits of the machine, and the shares by call."""
    console = Console(stderr=True, highlight=False, markup=False)
    products: dict[Arithmetic, MatrixProduct] = {}
    for kind in dict.fromkeys(call.arithmetic for call in calls):
        console.print(f"searching for the fastest matrix product in {kind}")
        products[kind] = fastest_matrix_product(matrix_products(threads, kind))
    copy = copy_gb_per_s(threads)
    rates: list[dict[Arithmetic, float]] = []
    copied: list[float] = []
    shares = {call.name: RooflineShares() for call in calls}
    for repeat in range(repeats):
        console.print(f"repetition {repeat + 1} of {repeats}")
        copy_gb = copy()
        gops = dict.fromkeys(products, 0.0)
        call_s = {}
        for call in calls:
            # The product beside each call, as the speed of the machine changes with its other load.
            product = products[call.arithmetic]
            rate = product.flop / min_call_s(product.run) / 1e9
            gops[call.arithmetic] = max(rate, gops[call.arithmetic])
            call_s[call.name] = min_call_s(call.run, min_total_s=0.4)
        for call in calls:
            own = MachineRates(arithmetic=call.arithmetic, gemm_gops=gops[call.arithmetic], copy_gb=copy_gb)
            shares[call.name].add(call_s[call.name], cost, call.batch, own)
        rates.append(gops)
        copied.append(copy_gb)
    figures = {
        f"GEMM {kind}": quantity([gops[kind] for gops in rates], "Gop/s", better="higher")
        for kind in products
    }
    return products, {**figures, "copy": quantity(copied, "GB/s", better="higher")}, shares


def _calls(engine: Engine, bundle: Bundle, batches: Sequence[int]) -> Iterator[_EngineCall]:
    """Yield a warmed-up call for each batch size."""
    rng = np.random.default_rng(0)
    for batch in batches:
        crops = rng.integers(0, 256, (batch, bundle.input_size, bundle.input_size, 3), np.uint8)
        run = partial(engine.features, crops)
        for _ in range(WARMUP_CALLS):
            run()
        yield _EngineCall(engine=engine.describe(), arithmetic=_arithmetic(engine), batch=batch, run=run)


def _notes(
    bundle: Bundle,
    cost: ComputeCost,
    figures: Mapping[str, Figure],
    products: Mapping[Arithmetic, MatrixProduct],
    threads: int,
) -> list[str]:
    limits = [
        f"{kind} limit: {figures[f'GEMM {kind}'].value:.1f} Gop/s by {product.name}"
        for kind, product in products.items()
    ]
    return [
        *limits,
        f"copy: {figures['copy'].value:.1f} GB/s; {threads} threads",
        f"backbone at {bundle.input_size} px: {cost.flop_per_item / 1e9:.3f} Gop and "
        f"{cost.activation_bytes_per_item / 1e6:.1f} MB a crop, "
        f"{cost.weight_bytes / 1e6:.1f} MB of weights a call, in float32; a quarter of the bytes in int8",
    ]


def _best_shares(calls: Sequence[_EngineCall], figures: Mapping[str, Figure]) -> dict[str, float]:
    """Return the largest share of its arithmetic's limit that any call reached, by arithmetic."""
    best: dict[str, float] = {}
    for call in calls:
        share = round(figures[f"{call.name}: share of its arithmetic"].value, 4)
        best[call.arithmetic] = max(share, best.get(call.arithmetic, 0.0))
    return best


def _row(call: _EngineCall, cost: ComputeCost, figures: Mapping[str, Figure]) -> tuple[str, ...]:
    call_ms, of_gemm, of_limit = (
        figures[f"{call.name}: {figure}"].value
        for figure in ("call", "share of its arithmetic", "share of its limit")
    )
    return (
        call.name,
        f"{call_ms:.2f}",
        f"{cost.flop(call.batch) / call_ms / 1e6:.1f}",
        call.arithmetic if of_limit - of_gemm < 1e-9 else "memory",
        f"{of_gemm:.1%}",
        f"{of_limit:.1%}",
    )
