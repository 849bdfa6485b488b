"""Faults: `unmask scan` is interrupted, or its results go where they cannot be written as they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `unmask scan` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "unmask", "scan", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("as_json", [False, True], ids=["table", "JSON"])
def test_every_encoding_gets_all_results(encoding: str, as_json: bool, clip: Path, tmp_path: Path) -> None:
    """Characters that the output cannot hold are escaped; no result is lost."""
    names = ["plain.mp4", "門.mp4", "na\udcffme.mp4", "t\u202e\x1b[31m.mp4"]
    for name in names:
        (tmp_path / name).symlink_to(clip)
    process = start(tmp_path, ".", *["--json"] * as_json, PYTHONIOENCODING=encoding)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, b"")
    lines = out.decode(encoding).splitlines()
    assert len(lines) == len(names) + (not as_json)
    assert all(line.isprintable() for line in lines)
    if as_json:
        assert {Path(json.loads(line)["file"]).name for line in lines} == set(names)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_is_done(number: signal.Signals, clip: Path, tmp_path: Path) -> None:
    """The table of the files that were scanned is printed, and how many are missing."""
    os.mkfifo(tmp_path / "endless")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "whole.mp4").symlink_to(clip)
    process = start(tmp_path, "whole.mp4", "empty.mp4", "endless")
    assert process.stderr is not None
    # The message about the second file means that the first is done; the third never ends.
    assert b"empty.mp4" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert err.decode() == "unmask: interrupted: 2 of 3 files were scanned\n"
    assert process.returncode == 2
    assert [word in out for word in (b"whole.mp4", b"empty.mp4", b"endless")] == [
        True,
        True,
        False,
    ]
