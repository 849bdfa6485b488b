"""Plot of the curves as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suites.scale.load_curve import CurvePoint, LoadCurve

INCHES = (11.0, 6.0)
# The file is the same for the same figures, and its text stays text.
STYLE: Any = {"svg.hashsalt": "unmask", "svg.fonttype": "none", "font.size": 9.0}
METADATA = {"Date": None, "Creator": None}

Value = Callable[[CurvePoint], float | None]
LATENCY = "capture to message, p99 (ms)"
PANELS: tuple[tuple[str, Value], ...] = (
    ("CPU a camera (cores)", lambda point: point.cores_each),
    (LATENCY, lambda point: point.p99_ms),
    ("memory (MiB)", lambda point: point.step.memory_mib),
)


def write_plot(curves: Sequence[LoadCurve], out: Path, *, machine: str) -> None:
    """Write one row of panels for the curves by cameras, and one for those by faces.

    Args:
        curves: The curves; a hollow marker is a point that was not sustained, the dotted line the limit
            of the latency.
        out: SVG file to write.
        machine: Description of the machine, for the title.

    Raises:
        OSError: The file cannot be written.
    """
    # Imported late: it takes a second, and only this needs it.
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [by for by in ("cameras", "faces") if any(curve.by == by for curve in curves)]
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            len(rows), len(PANELS), figsize=(INCHES[0], INCHES[1] * len(rows) / 2), squeeze=False
        )
        for row, by in zip(axes, rows, strict=True):
            shown = [curve for curve in curves if curve.by == by]
            for axis, (title, value) in zip(row, PANELS, strict=True):
                for curve in shown:
                    _draw(axis, curve, value)
                axis.set_title(title, fontsize="medium")
                axis.set_xlabel("cameras" if by == "cameras" else "faces of one camera")
                axis.set_xticks(sorted({curve.x(point) for curve in shown for point in curve.points}))
                axis.grid(alpha=0.3)
                if title == LATENCY:
                    axis.set_yscale("log")
                    axis.axhline(shown[0].bound_ms, color="grey", linestyle=":")
                    axis.yaxis.set_major_formatter("{x:g}")
                else:
                    axis.set_ylim(bottom=0)
            row[0].legend(fontsize="small")
        figure.suptitle(f"{machine}; hollow: not sustained", fontsize="medium")
        figure.tight_layout()
        figure.savefig(out, format="svg", metadata=METADATA)
        pyplot.close(figure)


def _draw(axis: Any, curve: LoadCurve, value: Value) -> None:
    shown = [(point, number) for point in curve.points if (number := value(point)) is not None]
    xs, ys = [curve.x(point) for point, _ in shown], [number for _, number in shown]
    (line,) = axis.plot(xs, ys, label=curve.name)
    for (point, number), x in zip(shown, xs, strict=True):
        fill = line.get_color() if curve.sustained(point) else "white"
        axis.plot(x, number, "o", color=line.get_color(), markerfacecolor=fill)
