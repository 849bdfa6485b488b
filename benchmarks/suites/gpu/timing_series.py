"""Timings of the ways to run the model on a GPU: figures, tables and the number of faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.hardware.compute_cost import ComputeCost
from benchmarks.harness.benchmark_record import Figure, distribution, new_table, quantity


@dataclass(frozen=True)
class TimingSeries:
    """Timings of one way to run the model.

    Args:
        name: Name for the tables.
        limit: Type whose matrix rate bounds it: `float32`, `float16` or `bfloat16`.
        backbone: Milliseconds of each call, by batch size.
        head: Milliseconds of each call, by batch size; empty if not measured.
    """

    name: str
    limit: str
    backbone: Mapping[int, Sequence[float]]
    head: Mapping[int, Sequence[float]]


def tensorrt_series(found: Mapping[Any, Mapping[str, Any]]) -> list[TimingSeries]:
    """Return the timings of the TensorRT workers.

    Args:
        found: By precision, the timings that a worker wrote, or `{"failed": reason}`.

    Returns:
        Timings with and without CUDA graphs, of every precision that ran.
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


def faces_sustained(series: TimingSeries, rate_hz: float) -> float:
    """Return the number of faces that one GPU sustains.

    Args:
        series: Timings, with those of the head.
        rate_hz: Crops per second and face; each crop also makes a window.

    Returns:
        Number of faces at the best batch size, with one call after the other, transfers included.
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
    series: Sequence[TimingSeries],
    limits: Mapping[str, Figure],
    copies: Mapping[str, Figure],
    rate_hz: float,
) -> dict[str, Figure]:
    """Return all figures by name.

    Args:
        series: Timings.
        limits: Matrix rates by type.
        copies: Copy rates by name.
        rate_hz: Crops per second and face.
    """
    figures = {f"GEMM {name}": figure for name, figure in limits.items()}
    figures |= {f"copy {name}": figure for name, figure in copies.items()}
    for one in series:
        for part, spent in (("backbone", one.backbone), ("head", one.head)):
            for batch, values in spent.items():
                figures[f"{one.name}, {part}, {batch}"] = distribution([values], "ms")
        if one.head:
            figures[f"{one.name}, faces"] = quantity(
                [faces_sustained(one, rate_hz)], "faces", better="higher"
            )
    return figures


def latency_table(
    series: Sequence[TimingSeries], cost: ComputeCost, limits: Mapping[str, Figure], batches: Sequence[int]
) -> Any:
    """Return the table of the backbone: percentiles by batch size; share of the limit and ratio at the
    largest.

    Args:
        series: Timings; the others are compared with the first.
        cost: Cost of the backbone.
        limits: Matrix rates by type.
        batches: Batch sizes.
    """
    table = new_table(
        "backbone, ms a call",
        (*(f"batch {batch} p50 / p90 / p99" for batch in batches), "crops/s", "of GEMM", "time ratio"),
    )
    largest = max(batches)
    for one in series:
        p50, p90, p99 = (
            {batch: float(np.percentile(values, share)) for batch, values in one.backbone.items()}
            for share in (50, 90, 99)
        )
        flops = cost.flop(largest) / (p50[largest] / 1e3)
        table.add_row(
            one.name,
            *(f"{p50[batch]:.2f} / {p90[batch]:.2f} / {p99[batch]:.2f}" for batch in batches),
            f"{1e3 * largest / p50[largest]:.0f}",
            f"{flops / (limits[one.limit].value * 1e12):.1%}",
            f"{p50[largest] / float(np.median(series[0].backbone[largest])):.2f}",
        )
    return table


def faces_table(series: Sequence[TimingSeries], rate_hz: float) -> Any:
    """Return the table of faces that one GPU sustains.

    Args:
        series: Timings.
        rate_hz: Crops per second and face.
    """
    table = new_table(f"faces with {rate_hz:g} crops a second", ("faces",))
    for one in series:
        if one.head:
            table.add_row(one.name, f"{faces_sustained(one, rate_hz):.0f}")
    return table
