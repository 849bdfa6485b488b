"""JSON Lines output: complete, without delay, and independent of its reader."""

from __future__ import annotations

import errno
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from runtime.errors import JsonlFailed
from runtime.serving.jsonl import JsonlWriter
from tests.support.wire import make_broadcaster, validate, verdict


def never(failure: JsonlFailed) -> None:
    """Fail the test: no failure is expected."""
    raise failure


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, Path]]:
    """Reading end of a pipe, and a path to open its writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "wb"):
        yield reader, Path(f"/dev/fd/{writing}")


def test_every_message_is_a_line(tmp_path: Path) -> None:
    """All messages are in the file, in order."""
    path = tmp_path / "verdicts.jsonl"
    with JsonlWriter(path, on_failure=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(2000):
            broadcaster.publish(verdict())
    lines = path.read_text(encoding="ascii").splitlines()
    messages = [json.loads(line) for line in lines]
    assert [message["seq"] for message in messages] == list(range(1, 2001))
    validate(messages[-1])


def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    """A second run keeps the lines of the first."""
    path = tmp_path / "verdicts.jsonl"
    for _ in range(2):
        with JsonlWriter(path, on_failure=never) as writer:
            make_broadcaster(sinks=[writer]).publish(verdict())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 1]


def test_a_line_is_written_at_once(pipe: tuple[TextIO, Path]) -> None:
    """A reader of a pipe need not wait for a buffer to fill."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for seq in (1, 2):
            broadcaster.publish(verdict())
            assert json.loads(lines.readline())["seq"] == seq


def test_a_closed_pipe_is_a_normal_end(pipe: tuple[TextIO, Path]) -> None:
    """The failure is reported once, with `closed` set."""
    lines, path = pipe
    failures: queue.SimpleQueue[JsonlFailed] = queue.SimpleQueue()
    with JsonlWriter(path, on_failure=failures.put) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        lines.close()
        broadcaster.publish(verdict())
        failure = failures.get(timeout=30)
        assert failure.closed
        broadcaster.publish(verdict())
        assert writer.failure is failure
    assert failures.empty()


def test_a_paused_reader_does_not_delay_publishing(pipe: tuple[TextIO, Path]) -> None:
    """Publishing goes on while a pipe is full, and all lines arrive once the reader continues."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(1000):
            broadcaster.publish(verdict())
        # More than a pipe holds: the writing thread is blocked, publishing was not.
        writer.close(timeout_s=0.05)
        assert broadcaster.seq == 1000
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))


def test_a_non_blocking_pipe_gets_every_line(pipe: tuple[TextIO, Path]) -> None:
    """A pipe in non-blocking mode, from a parent process, gets every line."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as writer:
        os.set_blocking(writer._descriptor, False)
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(1000):
            broadcaster.publish(verdict())
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))


def test_a_full_disk_is_a_failure() -> None:
    """A line that cannot be written is reported with advice, and not as a normal end."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    failures: queue.SimpleQueue[JsonlFailed] = queue.SimpleQueue()
    with JsonlWriter("/dev/full", on_failure=failures.put) as writer:
        make_broadcaster(sinks=[writer]).publish(verdict())
        failure = failures.get(timeout=30)
    assert not failure.closed
    assert failure.errno == errno.ENOSPC
    assert (
        str(failure) == "cannot write to /dev/full: no space left on device; give another path with --jsonl"
    )


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """A wrong path raises an error before anything is published."""
    with pytest.raises(JsonlFailed, match="no such file or directory; give another path with --jsonl"):
        JsonlWriter(tmp_path / "missing" / "verdicts.jsonl", on_failure=never)
    with pytest.raises(JsonlFailed, match="is a directory"):
        JsonlWriter(tmp_path, on_failure=never)


def test_standard_output_closes_silently() -> None:
    """`--jsonl - | head -1` writes nothing to standard error, though Python flushes at exit."""
    program = """
import sys, threading
from tests.support.wire import make_broadcaster, verdict
from runtime.serving.jsonl import JsonlWriter
closed = threading.Event()
with JsonlWriter("-", on_failure=lambda failure: closed.set()) as writer:
    broadcaster = make_broadcaster(sinks=[writer])
    while not closed.wait(0.01):
        broadcaster.publish(verdict())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["seq"] == 1
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
