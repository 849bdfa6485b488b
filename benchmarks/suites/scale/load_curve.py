"""Measurements at growing numbers of cameras or faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.benchmark_record import Figure, distribution, percentiles, quantity
from benchmarks.helpers.cameras import Footage, camera_source
from benchmarks.suites.throughput.load_step import LoadStep, bottleneck
from benchmarks.suites.throughput.monitored_load import MonitoredLoad
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import detector_infer, open_engine
from runtime.model.bundle import load_bundle


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Measurements at one number of cameras and faces.

    Args:
        cameras: Number of cameras.
        faces: Number of faces that each camera shows.
        step: The measurements.
    """

    cameras: int
    faces: int
    step: LoadStep

    @property
    def cores_each(self) -> float:
        """Cores that one camera keeps busy."""
        return self.step.own_cores / self.cameras

    @property
    def p99_ms(self) -> float | None:
        """99th percentile from capture to message; None without a verdict."""
        return percentiles(self.step.latency_ms)["p99"] if self.step.latency_ms else None


@dataclass(frozen=True, kw_only=True)
class LoadCurve:
    """Points of one line, in the order of measuring.

    Args:
        name: Size of the frames.
        by: What grows along it, `cameras` or `faces`.
        points: At least one.
        bound_ms: Limit of the 99th percentile.
    """

    name: str
    by: str
    points: Sequence[CurvePoint]
    bound_ms: float

    def x(self, point: CurvePoint) -> int:
        """Return the number that grows."""
        return point.cameras if self.by == "cameras" else point.faces

    def label(self, point: CurvePoint) -> str:
        """Return the name of a point."""
        return f"{self.name}, {point.cameras} x {_count(point.faces, 'face')}"

    def sustained(self, point: CurvePoint) -> bool:
        """Return whether no sample was lost and the latency was within its limit."""
        return not point.step.failures(self.bound_ms)

    def first_failure(self) -> str:
        """Describe the first point that was not sustained, and what limited it."""
        for point in self.points:
            if reasons := point.step.failures(self.bound_ms):
                limit = bottleneck(point.step, usable_cores())
                return f"{self.label(point)}: {'; '.join(reasons)}; limited by {limit}"
        last = self.points[-1]
        return f"{self.label(last)}: sustained, as all before"

    def figures(self) -> dict[str, Figure]:
        """Return the figures by name."""
        figures: dict[str, Figure] = {}
        for point in self.points:
            label = self.label(point)
            figures[f"{label}: CPU a camera"] = quantity([point.cores_each], "cores")
            if point.step.latency_ms:
                figures[f"{label}: capture to message"] = distribution([point.step.latency_ms], "ms")
            if point.step.memory_mib is not None:
                figures[f"{label}: memory"] = quantity([point.step.memory_mib], "MiB")
        return figures

    def row(self, point: CurvePoint) -> tuple[str, ...]:
        """Return the cells of the table."""
        step = point.step
        return (
            self.label(point),
            f"{point.cores_each:.3f}",
            f"{step.own_cores:.2f}",
            f"{step.verdicts_hz:.1f}",
            f"{step.faces:.1f}",
            f"{percentiles(step.latency_ms)['p50']:.0f}" if step.latency_ms else "",
            "" if point.p99_ms is None else f"{point.p99_ms:.0f}",
            "" if step.memory_mib is None else f"{step.memory_mib:.0f}",
            "yes" if self.sustained(point) else "no",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the points as JSON values."""
        points = []
        for point in self.points:
            values = {key: value for key, value in asdict(point.step).items() if key != "latency_ms"}
            failures = point.step.failures(self.bound_ms)
            points.append({**values, "faces_shown": point.faces, "failures": failures})
        return {"by": self.by, "points": points, "first_failure": self.first_failure()}


@dataclass(frozen=True, kw_only=True)
class LoadSetup:
    """Video, model and times of a measurement.

    Args:
        video: Video file that the cameras send.
        model: Directory of the bundle; None for the bundled model.
        engine: See `open_engine`.
        seconds: Length of the measurement.
        warmup_s: Time before it.
    """

    video: Path
    model: Path | None
    engine: str
    seconds: float
    warmup_s: float


def measure_load(setup: LoadSetup, footage: Footage, cameras: int) -> LoadStep:
    """Open an engine, monitor live cameras and measure.

    Args:
        setup: Model and times.
        footage: What the cameras send.
        cameras: Number of cameras.

    Raises:
        UnmaskError: The model or the engine cannot be used, or an analysis failed.
    """
    bundle = load_bundle(setup.model)
    with open_engine(bundle, setup.engine) as engine:
        load = MonitoredLoad(
            bundle,
            engine,
            detector_infer(setup.engine),
            None,
            seconds=setup.seconds,
            warmup_s=setup.warmup_s,
        )
        return load.measure([camera_source(setup.video, footage, number) for number in range(cameras)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
