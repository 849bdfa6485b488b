"""How near the backbone comes to what this machine can do at all.

The limits are measured in the same run: the fastest float32 matrix product of any library here, and copying
memory. A call of the backbone can be no faster than its arithmetic (`benchmarks/arithmetic.py`) at the first
rate, nor than its bytes at the second; the slower of the two is its limit, and the share of it that is
reached is the figure. Of limit and backbone alike the fastest of several calls counts, and they take turns:
whatever disturbs the machine disturbs both.

A share above 100 % of the arithmetic is possible: an engine may use int8, or need fewer operations.
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
from benchmarks.harness.errors import SettingInvalid
from benchmarks.harness.record import Figure, Output, new_record, new_table, quantity
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import open_engine
from runtime.model.bundle import Bundle, load_bundle

BATCHES = (1, 2, 4, 8)
WARMUP_CALLS = 2


@dataclass(frozen=True, kw_only=True)
class MachineRates:
    """Holds what the machine could do in one repetition.

    Args:
        gemm_gflops: 10^9 multiplications and additions a second, float32.
        copy_gb: 10^9 bytes a second, read and written.
    """

    gemm_gflops: float
    copy_gb: float

    def limit_s(self, work: ComputeCost, batch: int) -> float:
        """Give the least time that a call can take."""
        return max(self.gemm_s(work, batch), work.moved_bytes(batch) / self.copy_gb / 1e9)

    def gemm_s(self, work: ComputeCost, batch: int) -> float:
        """Give the least time that the arithmetic of a call can take."""
        return work.flop(batch) / self.gemm_gflops / 1e9


@dataclass
class RooflineShares:
    """Collects the repetitions of one engine at one batch size."""

    call_ms: list[float] = field(default_factory=list)
    of_gemm: list[float] = field(default_factory=list)
    of_limit: list[float] = field(default_factory=list)

    def add(self, call_s: float, work: ComputeCost, batch: int, rates: MachineRates) -> None:
        """Take in one repetition."""
        self.call_ms.append(1e3 * call_s)
        self.of_gemm.append(rates.gemm_s(work, batch) / call_s)
        self.of_limit.append(rates.limit_s(work, batch) / call_s)

    def figures(self, name: str) -> dict[str, Figure]:
        """Give the figures under a name."""
        return {
            f"{name}: call": quantity(self.call_ms, "ms"),
            f"{name}: share of GEMM": quantity(self.of_gemm, "x", better="higher"),
            f"{name}: share of limit": quantity(self.of_limit, "x", better="higher"),
        }


def run_roofline(
    *,
    batches: Sequence[int] = BATCHES,
    engines: Sequence[str] = ("auto",),
    repeats: int = 5,
    threads: int | None = None,
    model: Path | None = None,
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        batches: Sizes of the batch, one after the other.
        engines: As for `open_engine`, one after the other.
        repeats: How often everything is measured.
        threads: Of engines and limits alike; None for the cores that this process may use, up to eight.
        model: The bundle's directory; None for the one that ships with unmask.
        json_out: Where to write the record; None for nowhere.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, or a record cannot be written or read.
        UnmaskError: The model or an engine cannot be used.
    """
    if not batches or min(batches) < 1:
        raise SettingInvalid("--batch", ",".join(map(str, batches)), "give sizes from 1 on")
    output = Output("roofline", json_out=json_out, compare=compare)
    bundle = load_bundle(model)
    work = compute_cost_of(bundle.backbone)
    cores = threads or min(usable_cores(), 8)
    console = Console(stderr=True, highlight=False, markup=False)
    with ExitStack() as stack:
        calls = _calls(stack, bundle, engines, batches, threads)
        console.print("looking for the fastest matrix product")
        fastest = fastest_matrix_product(list(matrix_products(cores)))
        copy = copy_gb_per_s(cores)
        rates: list[MachineRates] = []
        shares = {name: RooflineShares() for name in calls}
        for repeat in range(repeats):
            console.print(f"repetition {repeat + 1} of {repeats}")
            copy_gb = copy()
            for name, (batch, call) in calls.items():
                # The product right before each call: the machine may be another one a second later.
                gflops = fastest.flop / min_call_s(fastest.run) / 1e9
                rates.append(MachineRates(gemm_gflops=gflops, copy_gb=copy_gb))
                shares[name].add(min_call_s(call, least_s=0.4), work, batch, rates[-1])
    gemm = _by_repeat([rate.gemm_gflops for rate in rates], repeats)
    copied = _by_repeat([rate.copy_gb for rate in rates], repeats)
    figures = {
        "GEMM float32": quantity(gemm, "GFLOP/s", better="higher"),
        "copy": quantity(copied, "GB/s", better="higher"),
    }
    table = new_table("engine, batch", ("ms a call", "GFLOP/s", "of GEMM", "of limit", "limited by"))
    for name, share in shares.items():
        figures |= share.figures(name)
        table.add_row(*_row(name, calls[name][0], share, work, figures))
    described = sorted({name.rpartition(",")[0] for name in calls})
    record = new_record(
        "roofline",
        settings={"batches": list(batches), "engines": list(engines), "repeats": repeats, "threads": cores},
        figures=figures,
        warmup=f"{WARMUP_CALLS} calls each",
        bundle=bundle,
        engine="; ".join(described),
        notes=[
            f"GEMM limit: {figures['GEMM float32'].value:.1f} GFLOP/s by {fastest.name}; "
            f"copy: {figures['copy'].value:.1f} GB/s; {cores} threads",
            f"backbone at {bundle.input_size} px: {work.flop_per_item / 1e9:.3f} GFLOP and "
            f"{work.activation_bytes_per_item / 1e6:.1f} MB a crop, "
            f"{work.weight_bytes / 1e6:.1f} MB of weights a call",
        ],
        backbone={
            "flop_per_crop": work.flop_per_item,
            "activation_bytes_per_crop": work.activation_bytes_per_item,
            "weight_bytes": work.weight_bytes,
        },
        gemm={"library": fastest.library, "shape": list(fastest.shape), "threads": cores},
        best_share_of_gemm=round(max(figures[f"{name}: share of GEMM"].value for name in calls), 4),
    )
    output.finish(record, table)
    return 0


def fastest_matrix_product(candidates: Sequence[MatrixProduct]) -> MatrixProduct:
    """Run every candidate twice and give the fastest."""

    def rate(product: MatrixProduct) -> float:
        product.run()
        return max(product.flop / min_call_s(product.run) for _ in range(2))

    return max(candidates, key=rate)


def _calls(
    stack: ExitStack, bundle: Bundle, engines: Sequence[str], batches: Sequence[int], threads: int | None
) -> dict[str, tuple[int, Call]]:
    """Open the engines; give their warm calls by engine and batch."""
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


def _row(
    name: str, batch: int, share: RooflineShares, work: ComputeCost, figures: Mapping[str, Figure]
) -> tuple[str, ...]:
    call_ms = figures[f"{name}: call"].value
    of_gemm, of_limit = figures[f"{name}: share of GEMM"].value, figures[f"{name}: share of limit"].value
    return (
        name,
        f"{call_ms:.2f}",
        f"{work.flop(batch) / call_ms / 1e6:.1f}",
        f"{of_gemm:.1%}",
        f"{of_limit:.1%}",
        "arithmetic" if of_limit - of_gemm < 1e-9 else "memory",
    )
