"""What every benchmark leaves behind: figures with the noise they were measured in, as a table and as JSON.

    output = Output("roofline", json_out=path, compare=None)     # finds out now whether it can be written
    figures = {"backbone": distribution([[12.1, 12.3], [12.2, 12.0]], "ms")}
    output.finish(new_record("roofline", settings={}, figures=figures, warmup=3), figure_table(figures))

A figure is measured in several repetitions of one run, and each repetition's value is kept: how far they lie
apart is the noise that a later run has to beat.
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
from runtime.files import write_atomically
from runtime.model.bundle import Bundle

FORMAT = 1
WIDTH = 200

Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Holds one measured quantity.

    Args:
        unit: Of all its numbers.
        repeats: By the name of the statistic, its value in each repetition; at least one statistic.
        better: Which way is an improvement.
        summary: What the figure is quoted as.
        n: How many single measurements stand behind it.
    """

    unit: str
    repeats: Mapping[str, tuple[float, ...]]
    summary: Mapping[str, float]
    n: int
    better: Better = "lower"

    @property
    def value(self) -> float:
        """The one number to quote: the median over time, or over the repetitions."""
        return self.summary["p50" if "p50" in self.summary else "value"]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "unit": self.unit,
            "better": self.better,
            "n": self.n,
            **{name: _short(value) for name, value in self.summary.items()},
            "repeats": {name: [_short(value) for value in values] for name, values in self.repeats.items()},
        }


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Summarise a distribution.

    Args:
        values: At least one.

    Returns:
        `mean`, `p50`, `p90`, `p99` (linear between the two nearest values) and `max`.
    """
    series = np.asarray(list(values), np.float64)
    p50, p90, p99 = np.percentile(series, [50, 90, 99]).tolist()
    figures = {"mean": float(series.mean()), "p50": p50, "p90": p90, "p99": p99, "max": float(series.max())}
    return {name: round(figure, 3) for name, figure in figures.items()}


def distribution(rounds: Sequence[Sequence[float]], unit: str, *, better: Better = "lower") -> Figure:
    """Make the figure of something that was measured many times over.

    Args:
        rounds: The single values of each repetition; at least one value in all.
        unit: Of the values.
        better: Which way is an improvement.

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
    """Make the figure of something that each repetition gives one value of.

    Args:
        repeats: That value in each repetition; at least one.
        unit: Of the values.
        better: Which way is an improvement.
        n: How many single measurements stand behind it; None for one a repetition.

    Returns:
        The figure, quoted as the median.
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
    """Put a record together.

    Args:
        benchmark: Its name on the command line.
        settings: What it was asked to do, as JSON values; two records compare if these agree.
        figures: What it found, by name.
        warmup: What was left out before anything counted, in words.
        bundle: The model, if one took part.
        engine: What ran it.
        notes: What a reader of the figures has to know.
        more: Further JSON values of this benchmark.

    Returns:
        JSON values: what was measured on what, and `figures`.
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


class Output:
    """Where a benchmark's result goes; made before anything is measured, so that a mistake costs no time.

    Args:
        benchmark: Its name on the command line.
        json_out: Where to write the record; None for nowhere.
        compare: A record of an earlier run to hold this one against; None for none.

    Raises:
        RecordNotWritten: The record cannot be written there.
        RecordUnreadable: The earlier record is none of this benchmark.
    """

    def __init__(self, benchmark: str, *, json_out: Path | None, compare: Path | None) -> None:
        self._json_out = json_out
        self._old_path = compare
        self._old = None if compare is None else read_record(compare, benchmark)
        if json_out is not None:
            try:
                json_out.open("a").close()
            except OSError as error:
                raise RecordNotWritten(json_out, error) from error

    def finish(self, record: Mapping[str, Any], *tables: Table) -> None:
        """Print the result, what changed since the earlier one, and write the record.

        Args:
            record: What `new_record` made.
            tables: The result for people.

        Raises:
            RecordNotWritten: The disk is full, or the like.
        """
        # As wide as it gets: a number that is cut off is worth nothing, and a terminal can wrap.
        console = Console(highlight=False, markup=False, soft_wrap=True, width=WIDTH)
        for line in headline(record):
            console.print(line)
        for table in tables:
            console.print(table)
        for note in record["notes"]:
            console.print(f"note: {note}")
        if self._old is not None:
            console.print(f"against {self._old_path}, of {self._old.get('time', 'unknown time')}:")
            for line in compare(self._old, record):
                console.print(f"  {line}")
        if self._json_out is not None:
            try:
                write_atomically(self._json_out, json.dumps(record, indent=2) + "\n")
            except OSError as error:
                raise RecordNotWritten(self._json_out, error) from error


def read_record(path: Path, benchmark: str) -> dict[str, Any]:
    """Read a record that an earlier run wrote.

    Args:
        path: The file.
        benchmark: Which benchmark's it has to be.

    Returns:
        The record as JSON values.

    Raises:
        RecordUnreadable: It is not there, no JSON, or of another benchmark or format.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordUnreadable(path, f"cannot be read ({error.strerror})") from error
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
    """Give the lines that stand above every table: without them a number means nothing."""
    machine = record["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in record["settings"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}",
        f"Python {machine['python']}, {libraries}",
    ]
    if "model" in record:
        lines.append(f"model {record['model']['name']} on {record['engine']}")
    return [*lines, f"{record['benchmark']}: {settings}; warm-up: {record['warmup']}"]


def new_table(first: str, columns: Iterable[str]) -> Table:
    """Make an empty table in the benchmarks' dress: names on the left, numbers to the right of them."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def figure_table(first: str, figures: Mapping[str, Figure], *, bold: str = "") -> Table:
    """Make the table of distributions, one a line.

    Args:
        first: What stands above the names; best the unit.
        figures: By name, each made by `distribution`.
        bold: The name of the line to stress.
    """
    columns = ("p50", "p90", "p99", "max", "mean")
    table = new_table(first, (*columns, "n"))
    for name, figure in figures.items():
        style = "bold" if name == bold else ""
        cells = [f"{figure.summary[column]:.2f}" for column in columns]
        table.add_row(*(Text(cell, style) for cell in (name, *cells, str(figure.n))))
    return table


def _short(value: float) -> float:
    # Six digits are more than any of this is good for, and keep a record readable.
    return float(f"{value:.6g}")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join(_plain(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
