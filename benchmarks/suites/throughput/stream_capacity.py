"""Search for the number of streams that is sustained at one resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from benchmarks.harness.benchmark_record import Figure, distribution, percentiles, quantity
from benchmarks.harness.capacity_search import max_capacity
from benchmarks.suites.throughput.load_step import MIN_ANALYSED, LoadStep, bottleneck
from runtime.engines.cpu import usable_cores
from streams.input.source import Source

SourceOf = Callable[[int], Source]


@dataclass
class StreamCapacity:
    """All steps at one resolution, and the numbers of streams that were sustained.

    Args:
        name: Resolution and frame rate.
        steps: The steps in the order of measuring.
        sustained: Largest sustained number of streams in each repetition.
        limited_by: Description of the bottleneck.
    """

    name: str
    steps: list[LoadStep] = field(default_factory=list)
    sustained: list[int] = field(default_factory=list)
    limited_by: str = ""

    @property
    def sustained_steps(self) -> list[LoadStep]:
        """Steps at the number of streams that was sustained in every repetition."""
        return [step for step in self.steps if step.streams == min(self.sustained)]

    def figures(self) -> dict[str, Figure]:
        """Return the figures by name."""
        figures = {f"{self.name} streams": quantity(self.sustained, "streams", better="higher")}
        sustained_steps = [step for step in self.sustained_steps if step.latency_ms]
        if sustained_steps:
            latencies = [step.latency_ms for step in sustained_steps]
            figures[f"{self.name} capture to message"] = distribution(latencies, "ms")
            figures[f"{self.name} CPU a stream"] = quantity(
                [step.own_cores / step.streams for step in sustained_steps], "cores"
            )
        return figures

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        count = "/".join(map(str, sorted(set(self.sustained))))
        if not self.sustained_steps:
            return count, "", "", "", "", "", ""
        step = self.sustained_steps[0]
        spread = percentiles(step.latency_ms)
        memory = "" if step.memory_mib is None else f"{step.memory_mib:.0f}"
        return (
            count,
            f"{step.verdicts_hz:.1f}",
            f"{spread['p50']:.0f}",
            f"{spread['p90']:.0f}",
            f"{spread['p99']:.0f}",
            f"{step.own_cores:.2f}",
            memory,
        )

    def notes(self, rate_hz: float) -> list[str]:
        """Return the bottleneck, and a remark if verdicts were missing."""
        notes = [f"{self.name}: limited by {self.limited_by}"]
        reached = max((step.verdicts_hz for step in self.sustained_steps), default=0.0)
        if self.sustained_steps and reached < MIN_ANALYSED * rate_hz:
            notes.append(f"{self.name}: {rate_hz:g} verdicts a second were due, {reached:.1f} were measured")
        return notes

    def to_dict(self, bound_ms: float) -> dict[str, Any]:
        """Return steps and result as JSON values."""
        steps = []
        for step in self.steps:
            values = {key: value for key, value in asdict(step).items() if key != "latency_ms"}
            summary = percentiles(step.latency_ms) if step.latency_ms else None
            steps.append({**values, "latency_ms": summary, "failures": step.failures(bound_ms)})
        return {"sustained": self.sustained, "limited_by": self.limited_by, "steps": steps}


def find_capacity(
    measure: Callable[[Sequence[Source]], LoadStep],
    name: str,
    source_of: SourceOf,
    *,
    bound_ms: float,
    max_streams: int,
    repeats: int,
) -> StreamCapacity:
    """Search for the sustained number of streams.

    Args:
        measure: Measures a list of sources.
        name: Resolution and frame rate.
        source_of: Returns the source of a stream by its index.
        bound_ms: Limit of the 99th percentile of the latency.
        max_streams: Largest number of streams to measure.
        repeats: Number of repetitions.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    capacity = StreamCapacity(name)
    failed: LoadStep | None = None

    def sustains(count: int) -> bool:
        nonlocal failed
        step = measure([source_of(number) for number in range(count)])
        capacity.steps.append(step)
        reasons = step.failures(bound_ms)
        if reasons and (failed is None or count <= failed.streams):
            failed = step
        console.print(f"{name}, {count} streams: {'; '.join(reasons) or 'sustained'}")
        return not reasons

    for _ in range(repeats):
        # Starting from the earlier result, a repetition takes two or three steps.
        start = max([1, *capacity.sustained])
        capacity.sustained.append(max_capacity(sustains, start=start, limit=max_streams))
    if failed is None:
        capacity.limited_by = f"--max-streams: {max_streams} streams were sustained"
    else:
        reasons = "; ".join(failed.failures(bound_ms))
        capacity.limited_by = f"{bottleneck(failed, usable_cores())}; with {failed.streams}: {reasons}"
    return capacity
