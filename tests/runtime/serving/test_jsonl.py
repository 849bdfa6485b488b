"""A recording holds every message, at once, and a reader that leaves or sleeps harms nobody."""

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
    """Fail, as nothing should go wrong."""
    raise failure


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, Path]]:
    """The reading end of a pipe, and a path under which its other end can be opened."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "wb"):
        yield reader, Path(f"/dev/fd/{writing}")


def test_every_message_is_a_line(tmp_path: Path) -> None:
    """However many there are, each is in the file, in order and as described."""
    path = tmp_path / "verdicts.jsonl"
    with JsonlWriter(path, on_failure=never) as recording:
        broadcaster = make_broadcaster(sinks=[recording])
        for _ in range(2000):
            broadcaster.publish(verdict())
    lines = path.read_text(encoding="ascii").splitlines()
    messages = [json.loads(line) for line in lines]
    assert [message["seq"] for message in messages] == list(range(1, 2001))
    validate(messages[-1])


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """A second run does not destroy what the first recorded."""
    path = tmp_path / "verdicts.jsonl"
    for _ in range(2):
        with JsonlWriter(path, on_failure=never) as recording:
            make_broadcaster(sinks=[recording]).publish(verdict())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 1]


def test_a_line_is_there_at_once(pipe: tuple[TextIO, Path]) -> None:
    """A reader at the other end of a pipe need not wait for a buffer to fill."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as recording:
        broadcaster = make_broadcaster(sinks=[recording])
        for seq in (1, 2):
            broadcaster.publish(verdict())
            assert json.loads(lines.readline())["seq"] == seq


def test_a_reader_that_leaves_is_told_as_an_end(pipe: tuple[TextIO, Path]) -> None:
    """The program hears once that nobody reads any more, and that this is no fault."""
    lines, path = pipe
    failures: queue.SimpleQueue[JsonlFailed] = queue.SimpleQueue()
    with JsonlWriter(path, on_failure=failures.put) as recording:
        broadcaster = make_broadcaster(sinks=[recording])
        lines.close()
        broadcaster.publish(verdict())
        failure = failures.get(timeout=30)
        assert failure.closed
        broadcaster.publish(verdict())
        assert recording.failure is failure
    assert failures.empty()


def test_a_reader_that_sleeps_holds_up_nobody(pipe: tuple[TextIO, Path]) -> None:
    """Publishing goes on while a pipe is full, and everything arrives once the reader wakes."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as recording:
        broadcaster = make_broadcaster(sinks=[recording])
        for _ in range(1000):
            broadcaster.publish(verdict())
        # More than a pipe holds, so the writing thread stands still, and publishing did not.
        recording.close(timeout_s=0.05)
        assert broadcaster.seq == 1000
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))


def test_a_pipe_that_does_not_block_is_written_to_as_well(pipe: tuple[TextIO, Path]) -> None:
    """A parent that hands down its own non-blocking pipe gets every line too."""
    lines, path = pipe
    with JsonlWriter(path, on_failure=never) as recording:
        os.set_blocking(recording._descriptor, False)
        broadcaster = make_broadcaster(sinks=[recording])
        for _ in range(1000):
            broadcaster.publish(verdict())
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))


def test_a_full_disk_is_a_fault() -> None:
    """A line that cannot be written is told with what to do, and is no mere end."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    failures: queue.SimpleQueue[JsonlFailed] = queue.SimpleQueue()
    with JsonlWriter("/dev/full", on_failure=failures.put) as recording:
        make_broadcaster(sinks=[recording]).publish(verdict())
        failure = failures.get(timeout=30)
    assert not failure.closed
    assert failure.errno == errno.ENOSPC
    assert (
        str(failure) == "cannot write to /dev/full: no space left on device; give another path with --jsonl"
    )


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    """A wrong path ends the program before it starts to watch anything."""
    with pytest.raises(JsonlFailed, match="no such file or directory; give another path with --jsonl"):
        JsonlWriter(tmp_path / "missing" / "verdicts.jsonl", on_failure=never)
    with pytest.raises(JsonlFailed, match="is a directory"):
        JsonlWriter(tmp_path, on_failure=never)


def test_standard_output_carries_the_lines_and_closes_without_a_word() -> None:
    """`--jsonl - | head -1` ends without a complaint on standard error, though Python flushes at exit."""
    program = """
import sys, threading
from tests.support.wire import make_broadcaster, verdict
from runtime.serving.jsonl import JsonlWriter
closed = threading.Event()
with JsonlWriter("-", on_failure=lambda failure: closed.set()) as recording:
    hub = make_broadcaster(sinks=[recording])
    while not closed.wait(0.01):
        hub.publish(verdict())
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
