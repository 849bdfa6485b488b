"""Records: figures and their noise, writing, reading and comparing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.benchmark_record import (
    Output,
    OutputConfig,
    distribution,
    figure_table,
    new_record,
    percentiles,
    quantity,
    read_record,
)
from benchmarks.harness.errors import RecordNotWritten, RecordUnreadable


def record(**more: Any) -> dict[str, Any]:
    figures = {
        "a": distribution([[1.0, 2.0], [3.0, 4.0]], "ms"),
        "b": quantity([5, 7, 6], "x", better="higher"),
    }
    return new_record(
        "latency", settings={"source": "demo", "rate": 0.5}, figures=figures, warmup="none", **more
    )


def test_percentiles() -> None:
    """Percentiles are those of numpy, linear between the two nearest values."""
    assert percentiles(range(101)) == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert percentiles([1.0, 2.0])["p90"] == 1.9


def test_a_distribution_keeps_every_repetition() -> None:
    """The summary is over all values, the noise between the parts; an empty part is left out."""
    figure = distribution([[1.0, 3.0], [], [5.0]], "ms")
    assert figure.n == 3
    assert figure.value == 3.0
    assert figure.repeats["p50"] == (2.0, 5.0)
    assert figure.to_dict()["max"] == 5.0


def test_a_quantity_is_quoted_as_its_median() -> None:
    """One slow repetition does not change the median."""
    figure = quantity([5.0, 100.0, 6.0], "s")
    assert figure.value == 6.0
    assert figure.to_dict()["repeats"] == {"value": [5.0, 100.0, 6.0]}


def test_a_written_record_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table, hardware and settings are printed; the file holds the same."""
    path = tmp_path / "out.json"
    figures = {"a": distribution([[1.0, 2.0], [3.0, 4.0]], "ms")}
    Output("latency", OutputConfig(json_out=path, compare=None)).finish(
        record(notes=["mind"]), figure_table("ms", figures)
    )
    printed = capsys.readouterr().out
    held = read_record(path, "latency")
    assert held["figures"]["a"]["p50"] == 2.5
    for text in (held["machine"]["cpu"], "source demo, rate 0.5", "p99", "note: mind"):
        assert text in printed


def test_an_earlier_record_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new record may overwrite the old one."""
    path = tmp_path / "out.json"
    Output("latency", OutputConfig(json_out=path, compare=None)).finish(record())
    Output("latency", OutputConfig(json_out=path, compare=path)).finish(record())
    assert "4 of 4 figures stayed within the noise" in capsys.readouterr().out
    assert read_record(path, "latency")


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    """The error is raised before the measurement and names the path."""
    with pytest.raises(RecordNotWritten, match=r"out\.json: cannot be written"):
        Output("latency", OutputConfig(json_out=tmp_path / "nowhere" / "out.json", compare=None))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("no json", "not JSON"),
        ("[1]", "not the record"),
        (json.dumps({"benchmark": "fanout", "format": 1, "figures": {}}), "'fanout'"),
        (json.dumps({"benchmark": "latency", "format": 99, "figures": {}}), "format 99"),
    ],
)
def test_other_files_cannot_be_compared(tmp_path: Path, content: str | None, words: str) -> None:
    """The error names the fault and the file to give instead."""
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecordUnreadable, match=words) as raised:
        Output("latency", OutputConfig(json_out=None, compare=path))
    assert "--compare" in str(raised.value)
