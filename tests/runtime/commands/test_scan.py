"""Tests of the output of `unmask scan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.commands.scan.command import run_scan
from runtime.commands.scan.outcome import ScanOptions


def test_json_output(
    small_bundle: Path, face_video: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON line per file, in order; an unreadable file gives exit code 2 and one line on stderr."""
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert run_scan(ScanOptions(paths=[face_video, empty, clip], as_json=True, model=small_bundle)) == 2
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [str(face_video), str(empty), str(clip)]
    assert [line["state"] for line in lines] == ["scored", "unreadable", "no_face"]
    assert list(lines[0]) == ["file", "state", "p_fake", "faces", "seconds", "frames"]
    assert list(lines[0]["faces"][0]) == ["face", "p_fake", "windows", "seconds", "counts"]
    assert lines[1]["p_fake"] is None
    assert lines[1]["error"] in err
    assert len(err.splitlines()) == 1


def test_table_output(
    small_bundle: Path, face_video: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row per file with its verdict, or the reason why there is none."""
    assert run_scan(ScanOptions(paths=[face_video, clip], model=small_bundle)) == 0
    out, err = capsys.readouterr()
    assert "no_face" in out
    assert any(state in out for state in ("real", "uncertain", "fake"))
    assert err == ""
