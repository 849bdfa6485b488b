"""JSON Lines output: complete, without delay, and independent of its reader."""

from __future__ import annotations

import contextlib
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
from runtime.outputs.jsonl import JsonlWriter, Rotation
from tests.support.wire import make_broadcaster, validate, verdict


def never() -> None:
    """Fail the test: the reader does not leave."""
    raise AssertionError("the recording ended")


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, Path]]:
    """Reading end of a pipe, and a path to open its writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "wb"):
        yield reader, Path(f"/dev/fd/{writing}")


def test_every_message_is_a_line(tmp_path: Path) -> None:
    """All messages are in the file, in order."""
    path = tmp_path / "verdicts.jsonl"
    with JsonlWriter(path, on_closed=never) as writer:
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
        with JsonlWriter(path, on_closed=never) as writer:
            make_broadcaster(sinks=[writer]).publish(verdict())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 1]


def test_a_line_is_written_at_once(pipe: tuple[TextIO, Path]) -> None:
    """A reader of a pipe need not wait for a buffer to fill."""
    lines, path = pipe
    with JsonlWriter(path, on_closed=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for seq in (1, 2):
            broadcaster.publish(verdict())
            assert json.loads(lines.readline())["seq"] == seq


def test_a_closed_pipe_is_a_normal_end(pipe: tuple[TextIO, Path]) -> None:
    """It is reported once, and is no failure."""
    lines, path = pipe
    ends: queue.SimpleQueue[bool] = queue.SimpleQueue()
    with JsonlWriter(path, on_closed=lambda: ends.put(True)) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        lines.close()
        broadcaster.publish(verdict())
        assert ends.get(timeout=30)
        broadcaster.publish(verdict())
        assert writer.closed
        assert writer.failure is None
    assert ends.empty()


def test_a_paused_reader_does_not_delay_publishing(pipe: tuple[TextIO, Path]) -> None:
    """Publishing goes on while a pipe is full, and all lines arrive once the reader continues."""
    lines, path = pipe
    with JsonlWriter(path, on_closed=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        # More than a pipe holds: the writing thread is blocked, publishing is not.
        for _ in range(1000):
            broadcaster.publish(verdict())
        assert broadcaster.seq == 1000
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))
        assert writer.lost == 0


def test_a_reader_that_never_continues_costs_counted_lines(
    pipe: tuple[TextIO, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest waiting lines are lost, memory stays bounded, and closing does not wait."""
    lines, path = pipe
    filler = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    writer = JsonlWriter(path, on_closed=never, capacity=10)
    broadcaster = make_broadcaster(sinks=[writer])
    for _ in range(50):
        broadcaster.publish(verdict())
    assert writer.lost >= 39
    writer.close(timeout_s=0.05)
    assert writer.lost in (49, 50)  # one may be in the system call that blocks
    assert f"{writer.lost} lines are lost" in caplog.text
    # The thread must end: its path may be that of the next test's pipe.
    os.read(lines.fileno(), 65536)
    writer.close(timeout_s=30)
    assert writer.finish()


def test_a_non_blocking_pipe_gets_every_line(pipe: tuple[TextIO, Path]) -> None:
    """A pipe in non-blocking mode, from a parent process, gets every line."""
    lines, path = pipe
    with JsonlWriter(path, on_closed=never) as writer:
        assert writer._descriptor is not None
        os.set_blocking(writer._descriptor, False)
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(1000):
            broadcaster.publish(verdict())
        assert [json.loads(lines.readline())["seq"] for _ in range(1000)] == list(range(1, 1001))


def test_a_full_disk_is_reported_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Lines that cannot be written are counted as lost when the writer closes; nothing ends."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with JsonlWriter("/dev/full", on_closed=never, retry_s=0.01) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(5):
            broadcaster.publish(verdict())
        writer.close(timeout_s=30)
        assert writer.failure is not None
        assert writer.failure.errno == errno.ENOSPC
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "cannot write to /dev/full: no space left on device; trying again until it succeeds",
        "/dev/full is incomplete: 5 lines are lost",
    ]
    assert str(writer.failure) == (
        "cannot write to /dev/full: no space left on device; give another path with --jsonl"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param('{"seq":1}\n{"se', '{"seq":1}\n{"se\n', id="incomplete last line"),
        pytest.param('{"seq":1}\n', '{"seq":1}\n', id="complete last line"),
        pytest.param("", "", id="empty"),
    ],
)
def test_an_incomplete_last_line_is_closed_at_the_start(tmp_path: Path, before: str, after: str) -> None:
    """The first line of a run begins on a line of its own, whatever the last run left behind."""
    path = tmp_path / "verdicts.jsonl"
    path.write_text(before)
    with JsonlWriter(path, on_closed=never) as writer:
        make_broadcaster(sinks=[writer]).publish(verdict())
    text = path.read_text()
    assert text.startswith(after)
    assert json.loads(text.removeprefix(after))["seq"] == 1


def test_a_disk_that_was_full_gets_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that was cut short is written again, whole and on a line of its own."""
    space = iter([20, 0, 0])
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        room = next(space, len(data))
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:room])

    monkeypatch.setattr("runtime.outputs.standard_error.os.write", limited)
    path = tmp_path / "verdicts.jsonl"
    with JsonlWriter(path, on_closed=never, retry_s=0.001) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        broadcaster.publish(verdict())
        while writer.failure is not None or not path.exists() or path.read_bytes().count(b"\n") < 2:
            pass
        broadcaster.publish(verdict())
    torn, *lines = path.read_text().splitlines()
    assert len(torn) == 20
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]
    assert "written again; 0 lines are lost" in caplog.text


def test_rotation_continues_in_a_new_file(tmp_path: Path) -> None:
    """After `reopen` the renamed file gets nothing more; no line is lost."""
    path, rotated = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.1"
    with JsonlWriter(path, on_closed=never) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        broadcaster.publish(verdict())
        path.rename(rotated)
        writer.reopen()
        broadcaster.publish(verdict())
    lines = (rotated.read_text() + path.read_text()).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]
    assert json.loads(path.read_text().splitlines()[-1])["seq"] == 2


def test_a_fifo_waits_for_its_readers(tmp_path: Path) -> None:
    """Opening a FIFO without a reader does not block; each reader gets whole lines."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with JsonlWriter(path, on_closed=never, retry_s=0.01) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        broadcaster.publish(verdict())
        with path.open() as first:
            assert json.loads(first.readline())["seq"] == 1
        broadcaster.publish(verdict())
        with path.open() as second:
            assert json.loads(second.readline())["seq"] == 2


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """A wrong path raises an error before anything is published."""
    with pytest.raises(JsonlFailed, match="no such file or directory; give another path with --jsonl"):
        JsonlWriter(tmp_path / "missing" / "verdicts.jsonl", on_closed=never)
    with pytest.raises(JsonlFailed, match="is a directory"):
        JsonlWriter(tmp_path, on_closed=never)


def test_standard_output_closes_silently() -> None:
    """`--jsonl - | head -1` writes nothing to standard error, though Python flushes at exit."""
    program = """
import sys, threading
from tests.support.wire import make_broadcaster, verdict
from runtime.outputs.jsonl import JsonlWriter, Rotation
closed = threading.Event()
with JsonlWriter("-", on_closed=closed.set) as writer:
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


def test_rotation_by_size(tmp_path: Path) -> None:
    """Files stay small, the newest are kept, no line between them is lost."""
    path = tmp_path / "verdicts.jsonl"
    rotation = Rotation(max_bytes=4000, keep=3)
    with JsonlWriter(path, on_closed=never, rotation=rotation) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(200):
            broadcaster.publish(verdict())
    names = ["verdicts.jsonl.3", "verdicts.jsonl.2", "verdicts.jsonl.1", "verdicts.jsonl"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size < 5000 for name in names)
    seqs = [json.loads(line)["seq"] for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert seqs == list(range(seqs[0], 201))


def test_a_file_that_cannot_be_rotated_grows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No line is lost; the failure is logged once."""
    path = tmp_path / "verdicts.jsonl"
    (tmp_path / "verdicts.jsonl.1" / "a folder that is in the way").mkdir(parents=True)
    with JsonlWriter(path, on_closed=never, rotation=Rotation(max_bytes=1000, keep=1)) as writer:
        broadcaster = make_broadcaster(sinks=[writer])
        for _ in range(50):
            broadcaster.publish(verdict())
    assert len(path.read_text().splitlines()) == 50
    assert len(caplog.records) == 1


def test_a_rotation_of_nothing_is_refused() -> None:
    """A limit of zero would rotate after every line."""
    with pytest.raises(ValueError, match="1000 bytes"):
        Rotation(max_bytes=0)
