"""Priorities for the system's journal, in the real command."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.outputs.standard_error import NOTICE, with_priority

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (NOTICE, 5),
        (logging.INFO, 6),
        (10, 7),
    ],
)
def test_priorities(level: int, number: int) -> None:
    """Each line of a text has the priority of syslog."""
    assert with_priority("a\nb", level) == f"<{number}>a\n<{number}>b"


def test_a_mistake_in_a_service_is_an_error_of_the_journal(tmp_path: Path) -> None:
    """With a pipe to the journal the line has a priority; in a file, or without a journal, it has none."""
    command = [sys.executable, "-m", "unmask", "scan", str(tmp_path)]
    journal = {**os.environ, "JOURNAL_STREAM": "8:1234"}
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=journal, check=False)
    assert piped.returncode == 2
    assert piped.stderr.startswith("<3>unmask: ")
    with (tmp_path / "log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stderr=log, env=journal, check=False)
    assert (tmp_path / "log").read_text().startswith("unmask: ")
