"""Measurements at one number of streams, the reasons of a failure, and the bottleneck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.harness.benchmark_record import percentiles

# Minimum share of the due samples that are analysed; the edges of the measurement may cost a sample.
MIN_ANALYSED = 0.95
# Load from which a core, or all cores, count as busy.
BUSY = 0.9


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """Measurements of a number of concurrent streams.

    Args:
        streams: Number of streams.
        latency_ms: Time from capture to message, of every frame with a verdict.
        verdicts_hz: Frames with a verdict per second, of the slowest stream.
        analysed_hz: Samples analysed per second, of the slowest stream.
        due_hz: Samples due per second.
        dropped: Due samples without a verdict, all streams together.
        lost: Number of streams that were not live all the time.
        own_cores: Cores that the monitor kept busy.
        machine_cores: Cores busy in the whole machine; None on systems without /proc.
        memory_mib: Memory of the process; None on systems without /proc.
        cores_by: Cores kept busy by each part of the program.
        backbone_busy: Share of the time that the backbone ran, 0..1.
        faces: Mean number of faces with a verdict in a frame.
    """

    streams: int
    latency_ms: Sequence[float]
    verdicts_hz: float
    analysed_hz: float
    due_hz: float
    dropped: int
    lost: int
    own_cores: float
    machine_cores: float | None
    memory_mib: float | None
    cores_by: Mapping[str, float] = field(default_factory=dict)
    backbone_busy: float = 0.0
    faces: float = 0.0

    def failures(self, bound_ms: float) -> list[str]:
        """Return why these streams are not sustained; empty if they are.

        Args:
            bound_ms: Limit of the 99th percentile of the latency.
        """
        reasons = []
        if self.lost:
            reasons.append(f"{self.lost} of {self.streams} streams were not live all the time")
        if self.dropped:
            reasons.append(f"{self.dropped} due samples got no verdict")
        if self.analysed_hz < MIN_ANALYSED * self.due_hz:
            reasons.append(f"{self.analysed_hz:.1f} of {self.due_hz:g} samples a second analysed")
        if not self.latency_ms:
            reasons.append("no face got a verdict")
        elif (p99_ms := percentiles(self.latency_ms)["p99"]) > bound_ms:
            reasons.append(f"p99 was {p99_ms:.0f} ms, over the bound of {bound_ms:g} ms")
        return reasons


def bottleneck(step: LoadStep, cores: int) -> str:
    """Describe the resource that limited a step that was not sustained.

    Args:
        step: The step.
        cores: Number of cores that this process may use.
    """
    parts = ", ".join(f"{part} {busy:.2f}" for part, busy in step.cores_by.items())
    others = 0.0 if step.machine_cores is None else max(0.0, step.machine_cores - step.own_cores)
    if step.own_cores >= BUSY * cores:
        return f"the CPU: all {cores} cores busy ({parts})"
    if step.own_cores + others >= BUSY * cores:
        return f"the CPU, of which other programs took {others:.2f} of {cores} cores ({parts})"
    if step.backbone_busy >= BUSY:
        return f"the backbone, which ran {step.backbone_busy:.0%} of the time ({parts})"
    return (
        f"waiting, most likely for the interpreter, in which one thread runs at a time: "
        f"{step.own_cores:.2f} of {cores} cores busy ({parts})"
    )
