"""Records of benchmarks: figures with their noise, printed as tables and written as JSON.

    output = Output("roofline", RooflineConfig(json_out=path))     # raises here if it cannot be written
    figures = {"backbone": distribution([[12.1, 12.3], [12.2, 12.0]], "ms")}
    record = new_record("roofline", settings={}, figures=figures, warmup="none")
    output.finish(record, figure_table("ms", figures))

Each figure is measured in several repetitions, and the value of each is kept: their spread is the noise that
a later run is compared against.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.hardware.machine_info import describe_machine
from benchmarks.harness.errors import RecordNotWritten, RecordUnreadable
from benchmarks.harness.record_comparison import compare
from runtime.errors import os_reason
from runtime.files import check_writable, write_atomically
from runtime.model.bundle import Bundle

FORMAT = 1
WIDTH = 200

Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured quantity.

    Args:
        unit: Unit of all its numbers.
        repeats: Value of each statistic in each repetition; at least one statistic.
        better: Direction of an improvement.
        summary: Statistics over all repetitions.
        n: Number of single measurements.
    """

    unit: str
    repeats: Mapping[str, tuple[float, ...]]
    summary: Mapping[str, float]
    n: int
    better: Better = "lower"

    @property
    def value(self) -> float:
        """The median, over all measurements or over the repetitions."""
        return self.summary["p50" if "p50" in self.summary else "value"]

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON values."""
        return {
            "unit": self.unit,
            "better": self.better,
            "n": self.n,
            **{name: _short(value) for name, value in self.summary.items()},
            "repeats": {name: [_short(value) for value in values] for name, values in self.repeats.items()},
        }


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return the statistics of a distribution.

    Args:
        values: At least one value.

    Returns:
        `mean`, `p50`, `p90`, `p99` (linear between the two nearest values) and `max`.
    """
    series = np.asarray(list(values), np.float64)
    p50, p90, p99 = np.percentile(series, [50, 90, 99]).tolist()
    figures = {"mean": float(series.mean()), "p50": p50, "p90": p90, "p99": p99, "max": float(series.max())}
    return {name: round(figure, 3) for name, figure in figures.items()}


def distribution(rounds: Sequence[Sequence[float]], unit: str, *, better: Better = "lower") -> Figure:
    """Return the figure of a quantity with many measurements per repetition.

    Args:
        rounds: Measurements of each repetition; at least one in all.
        unit: Unit of the measurements.
        better: Direction of an improvement.

    Returns:
        The figure, summarised over all repetitions by `percentiles`.
    """
    filled = [percentiles(values) for values in rounds if len(values)]
    return Figure(
        unit=unit,
        better=better,
        n=sum(len(values) for values in rounds),
        summary=percentiles(value for values in rounds for value in values),
        repeats={name: tuple(part[name] for part in filled) for name in ("mean", "p50", "p99")},
    )


def quantity(
    repeats: Sequence[float], unit: str, *, better: Better = "lower", n: int | None = None
) -> Figure:
    """Return the figure of a quantity with one value per repetition.

    Args:
        repeats: Value of each repetition; at least one.
        unit: Unit of the values.
        better: Direction of an improvement.
        n: Number of single measurements; None for one per repetition.

    Returns:
        The figure, summarised by the median.
    """
    return Figure(
        unit=unit,
        better=better,
        n=len(repeats) if n is None else n,
        summary={"value": statistics.median(repeats), "min": min(repeats), "max": max(repeats)},
        repeats={"value": tuple(float(value) for value in repeats)},
    )


def new_record(
    benchmark: str,
    *,
    settings: Mapping[str, Any],
    figures: Mapping[str, Figure],
    warmup: str,
    bundle: Bundle | None = None,
    engine: str | None = None,
    notes: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a record as JSON values.

    Args:
        benchmark: Name of the benchmark on the command line.
        settings: Settings as JSON values; differences are listed when records are compared.
        figures: Figures by name.
        warmup: Description of the warm-up, which is excluded from the figures.
        bundle: Model bundle, if one was used.
        engine: Description of the engine.
        notes: Remarks on the figures.
        more: Further JSON values of this benchmark.

    Returns:
        The record: machine, model, settings, `figures` and notes.
    """
    record: dict[str, Any] = {
        "benchmark": benchmark,
        "format": FORMAT,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
    }
    if bundle is not None:
        record["model"] = {"name": bundle.name, "digest": bundle.digest, "weights": bundle.weights}
    if engine is not None:
        record["engine"] = engine
    return {
        **record,
        "settings": dict(settings),
        "warmup": warmup,
        **more,
        "figures": {name: figure.to_dict() for name, figure in figures.items()},
        "notes": list(notes),
    }


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output settings of a benchmark; base of the settings of each benchmark.

    Args:
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    json_out: Path | None = None
    compare: Path | None = None


class Output:
    """Output of a benchmark. Created before the measurement, so that a wrong path costs no time.

    Args:
        benchmark: Name of the benchmark on the command line.
        config: Where to write the record, and which record to compare with.

    Raises:
        RecordNotWritten: The record cannot be written.
        RecordUnreadable: The earlier record is not one of this benchmark.
    """

    def __init__(self, benchmark: str, config: OutputConfig) -> None:
        self._config = config
        self._old = None if config.compare is None else read_record(config.compare, benchmark)
        if config.json_out is not None:
            try:
                check_writable(config.json_out)
            except OSError as error:
                raise RecordNotWritten(config.json_out, error) from error

    def finish(self, record: Mapping[str, Any], *tables: Table) -> None:
        """Print the tables and the changes since the earlier record, and write the record.

        Args:
            record: Result of `new_record`.
            tables: Tables to print.

        Raises:
            RecordNotWritten: The record cannot be written, for example on a full disk.
        """
        # Wide: a terminal wraps long lines, but a truncated number is lost.
        console = Console(highlight=False, markup=False, soft_wrap=True, width=WIDTH)
        for line in headline(record):
            console.print(line)
        for table in tables:
            console.print(table)
        for note in record["notes"]:
            console.print(f"note: {note}")
        if self._old is not None:
            console.print(f"against {self._config.compare}, of {self._old.get('time', 'unknown time')}:")
            for line in compare(self._old, record):
                console.print(f"  {line}")
        if self._config.json_out is not None:
            try:
                write_atomically(self._config.json_out, json.dumps(record, indent=2) + "\n")
            except OSError as error:
                raise RecordNotWritten(self._config.json_out, error) from error


def read_record(path: Path, benchmark: str) -> dict[str, Any]:
    """Read a record that an earlier run wrote.

    Args:
        path: The file.
        benchmark: Name of the benchmark that must have written it.

    Returns:
        The record as JSON values.

    Raises:
        RecordUnreadable: The file is missing, no JSON, or of another benchmark or format.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordUnreadable(path, f"cannot be read ({os_reason(error)})") from error
    except ValueError as error:
        raise RecordUnreadable(path, "is not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("figures"), dict):
        raise RecordUnreadable(path, "is not the record of a benchmark")
    if record.get("benchmark") != benchmark:
        raise RecordUnreadable(path, f"is a record of {record.get('benchmark')!r}, not of {benchmark!r}")
    if record.get("format") != FORMAT:
        raise RecordUnreadable(path, f"has format {record.get('format')!r}, not {FORMAT}")
    return record


def headline(record: Mapping[str, Any]) -> list[str]:
    """Return the lines above the tables: hardware, versions, model, settings and warm-up."""
    machine = record["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in record["settings"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}",
        f"instruction sets: {' '.join(machine['instruction_sets']) or 'unknown'}",
        f"Python {machine['python']}, {libraries}",
    ]
    if "model" in record:
        lines.append(f"model {record['model']['name']} on {record['engine']}")
    return [*lines, f"{record['benchmark']}: {settings}; warm-up: {record['warmup']}"]


def new_table(first: str, columns: Iterable[str]) -> Table:
    """Return an empty table: names in the first column, numbers aligned right in the others."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def figure_table(first: str, figures: Mapping[str, Figure], *, bold: str = "") -> Table:
    """Return a table with one distribution per line.

    Args:
        first: Heading of the names, usually the unit.
        figures: Results of `distribution` by name.
        bold: Name of the line to print in bold.
    """
    columns = ("p50", "p90", "p99", "max", "mean")
    table = new_table(first, (*columns, "n"))
    for name, figure in figures.items():
        style = "bold" if name == bold else ""
        cells = [f"{figure.summary[column]:.2f}" for column in columns]
        table.add_row(*(Text(cell, style) for cell in (name, *cells, str(figure.n))))
    return table


def _short(value: float) -> float:
    # More digits than are significant, and few enough for a readable record.
    return float(f"{value:.6g}")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join(_plain(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
