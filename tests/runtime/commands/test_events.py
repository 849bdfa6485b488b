"""`unmask events verify`, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.outputs.evidence.store import EvidenceStore
from tests.support.evidence import START, keep_event
from unmask import run


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each event; the exit code tells whether all are unchanged."""
    store = EvidenceStore(tmp_path / "evidence", wall=lambda: START)
    first, second = (keep_event(store, time=START + number) for number in range(2))
    assert run(["events", "verify", str(store.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [first.id, second.id]
    (store.folder / second.id / "trail.json").write_text("[]")
    assert run(["events", "verify", str(store.folder / first.id)]) == 0
    capsys.readouterr()
    assert run(["events", "verify", str(store.folder)]) == 2
    assert "trail.json was changed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "missing"])
def test_nothing_to_verify(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error."""
    assert run(["events", "verify", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
