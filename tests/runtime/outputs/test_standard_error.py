"""Priorities for the system's journal, in the real command."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.outputs.standard_error import NOTICE, StandardError, with_priority, write_line

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


# Writes as a library in C does, which does not know of `sys.stderr`.
LIBRARY = """
import os, sys
from runtime.outputs.standard_error import StandardError
with StandardError(capacity=100):
    for number in range({count}):
        try:
            os.write(2, b"warning %d of a library\\n" % number)
        except BlockingIOError:
            pass
    print("done", flush=True)
    {wait}
os.write(2, b"after\\n")
"""


def test_messages_of_libraries_are_written() -> None:
    """They come in order and completely; afterwards the descriptor is the real one again."""
    script = LIBRARY.format(count=3, wait="print('own', file=sys.stderr)")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert sorted(lines) == sorted([*(f"warning {i} of a library" for i in range(3)), "own", "after"])
    assert lines[-1] == "after"


def test_a_line_follows_the_messages_before_it(capfd: pytest.CaptureFixture[str]) -> None:
    """The last line of a failed run is its error, not a message of the log that waited."""
    with StandardError() as output:
        for number in range(200):
            output.write(f"message {number}\n")
        write_line("the error")
    assert capfd.readouterr().err.splitlines() == [
        *(f"message {number}" for number in range(200)),
        "the error",
    ]


def test_a_library_does_not_wait_for_the_reader_of_standard_error() -> None:
    """A megabyte of messages to a pipe that nobody reads holds nothing up."""
    script = LIBRARY.format(count=50_000, wait="sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "earlier messages are lost" in errors or errors.startswith("warning 0 ")


def test_a_crash_is_reported() -> None:
    """The stack of a crash inside a library is written to the real standard error."""
    script = "import ctypes\n" + LIBRARY.format(count=0, wait="ctypes.string_at(0)")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode < 0
    assert "Segmentation fault" in done.stderr


def test_the_log_of_a_service(tmp_path: Path, face_video: Path) -> None:
    """Each line has its priority and no time; in a file it has the time and no priority."""
    command = [sys.executable, "-m", "unmask", "monitor", str(face_video), "--port", "0", "--duration", "0.1"]
    journal = {**os.environ, "JOURNAL_STREAM": "8:1234"}
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=journal, check=True)
    lines = piped.stderr.splitlines()
    assert lines
    assert all(line.startswith(("<5>", "<6>")) for line in lines), lines
    with (tmp_path / "log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stderr=log, env=journal, check=True)
    assert not any(line.startswith("<") for line in (tmp_path / "log").read_text().splitlines())
