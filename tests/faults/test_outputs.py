"""Faults of outputs: readers that stop, leave or never come, full disks, closed streams.

In every case the real command goes on publishing and answering, and a signal ends it with exit code 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unmask import watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, FIFOs and signals of POSIX")

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


@dataclass
class Outputs:
    """Standard output and error of the command, its recording, and what the test must keep open."""

    stdout: int = subprocess.DEVNULL
    stderr: int = subprocess.DEVNULL
    jsonl: str | None = None
    closed: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    kept: list[int] = field(default_factory=list)


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def unread_error(_: Path) -> Outputs:
    reading, writing = full_pipe()
    return Outputs(stderr=writing, kept=[reading, writing])


def unread_error_and_recording(_: Path) -> Outputs:
    reading, writing = full_pipe()
    return Outputs(stdout=writing, stderr=writing, jsonl="-", kept=[reading, writing])


def unread_terminal(_: Path) -> Outputs:
    controller, terminal = pty.openpty()
    return Outputs(stderr=terminal, kept=[controller, terminal])


def reader_of_error_left(_: Path) -> Outputs:
    reading, writing = os.pipe()
    os.close(reading)
    return Outputs(stderr=writing, kept=[writing])


def error_on_a_full_disk(_: Path) -> Outputs:
    full = os.open("/dev/full", os.O_WRONLY)
    return Outputs(stderr=full, kept=[full])


def fifo_without_reader(folder: Path) -> Outputs:
    os.mkfifo(folder / "fifo")
    return Outputs(jsonl=str(folder / "fifo"))


def fifo_that_is_not_read(folder: Path) -> Outputs:
    os.mkfifo(folder / "fifo")
    reading = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    return Outputs(jsonl=str(folder / "fifo"), kept=[reading, writing])


def everything_fails(folder: Path) -> Outputs:
    # A server that accepts connections but never answers, and a port on which nobody listens.
    silent = socket.create_server(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()[1]
    options = (
        "--webhook",
        f"http://127.0.0.1:{silent.getsockname()[1]}/",
        "--mqtt",
        f"mqtt://127.0.0.1:{nobody}",
    )
    evidence = ("--evidence", str(folder / "evidence"), "--evidence-control", "1.0")
    return Outputs(jsonl="/dev/full", options=(*options, *evidence), kept=[silent.detach()])


CASES: dict[str, Callable[[Path], Outputs]] = {
    "standard error is never read, as in `2>&1 | sleep 1000`": unread_error,
    "`--jsonl -` and standard error are never read": unread_error_and_recording,
    "the terminal with the live table is stopped": unread_terminal,
    "the reader of standard error has left": reader_of_error_left,
    "standard error goes to a full disk": error_on_a_full_disk,
    "standard error is closed": lambda _: Outputs(closed=(2,)),
    "all standard streams are closed": lambda _: Outputs(closed=(0, 1, 2)),
    "`--jsonl` names a FIFO without a reader": fifo_without_reader,
    "`--jsonl` names a FIFO that is not read": fifo_that_is_not_read,
    "the disk of `--jsonl` is full": lambda _: Outputs(jsonl="/dev/full"),
    "webhook, broker and disk fail at the same time": everything_fails,
    "`--jsonl -` with standard output closed": lambda _: Outputs(jsonl="-", closed=(1,)),
}
COMMANDS_AT_A_TIME = 4


class Command:
    """Running `unmask monitor` on a long video, on a port that is known beforehand."""

    def __init__(self, film: Path, outputs: Outputs) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        recording = [] if outputs.jsonl is None else ["--jsonl", outputs.jsonl]
        port = self.address.rpartition(":")[2]
        arguments = [sys.executable, "-m", "unmask", "monitor", str(film), "--port", port, *recording]
        arguments += outputs.options
        if outputs.closed:
            closed = " ".join(f"{number}>&-" for number in outputs.closed)
            arguments = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *arguments]
        self.process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=outputs.stdout, stderr=outputs.stderr
        )

    def get(self, path: str) -> str:
        """Return a page, waiting for the server to start."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}{path}", timeout=TIMEOUT_S) as response:
                    return str(response.read().decode())
            # A server that starts on a busy machine may close a connection before it reads the request.
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, f"it ended with exit code {self.process.returncode}"
                assert time.monotonic() < deadline
                time.sleep(0.05)

    async def verdicts_during_two_heartbeats(self) -> int:
        """Count verdicts between two heartbeats of the running program."""
        verdicts = heartbeats = 0
        async with asyncio.timeout(TIMEOUT_S), watch(self.address) as messages:
            async for message in messages:
                heartbeats += message["type"] == "heartbeat"
                verdicts += heartbeats > 0 and message["type"] == "verdict"
                if heartbeats >= 3 and verdicts:
                    break
        return verdicts


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, make_face_video: Callable[..., Path]) -> Path:
    """Video that lasts longer than a test."""
    return make_face_video(tmp_path_factory.mktemp("film") / "film.mp4", seconds=90)


@pytest.fixture
def run(film: Path) -> Iterator[Callable[[Outputs], Command]]:
    """Function that starts the command with given outputs."""
    commands: list[Command] = []
    kept: list[int] = []

    def start(outputs: Outputs) -> Command:
        kept.extend(outputs.kept)
        commands.append(Command(film, outputs))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()
    for descriptor in kept:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Answers of a running command, and its exit code after SIGTERM."""

    streams: list[str]
    verdicts: int
    metrics: str
    returncode: int


def watch_command(film: Path, make_outputs: Callable[[Path], Outputs], folder: Path) -> Watched:
    """Start the command with some outputs, ask it for everything that it serves, and end it."""
    folder.mkdir()
    outputs = make_outputs(folder)
    command = Command(film, outputs)
    try:
        streams = list(json.loads(command.get("/healthz"))["streams"])
        verdicts = asyncio.run(command.verdicts_during_two_heartbeats())
        metrics = command.get("/metrics")
        command.process.send_signal(signal.SIGTERM)
        returncode = command.process.wait(10)
        return Watched(streams=streams, verdicts=verdicts, metrics=metrics, returncode=returncode)
    finally:
        command.process.kill()
        command.process.wait()
        for descriptor in outputs.kept:
            os.close(descriptor)


@pytest.fixture(scope="module")
def watched(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Watched]]]:
    """Every case. Several run at a time, because each waits for heartbeats most of its time."""
    folder = tmp_path_factory.mktemp("outputs")
    with ThreadPoolExecutor(COMMANDS_AT_A_TIME) as pool:
        yield {
            case: pool.submit(watch_command, film, make_outputs, folder / str(number))
            for number, (case, make_outputs) in enumerate(CASES.items())
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES)
def test_a_blocked_output_delays_nothing_else(case: str, watched: dict[str, Future[Watched]]) -> None:
    """Verdicts, heartbeats, health and metrics continue; SIGTERM ends the program in time."""
    found = watched[case].result()
    assert found.streams == ["film.mp4"]
    assert found.verdicts > 0
    assert "unmask_output_lines_lost" in found.metrics
    assert found.returncode == 0


def test_sighup_continues_the_recording_in_a_new_file(
    run: Callable[[Outputs], Command], tmp_path: Path
) -> None:
    """Log rotation: the file is renamed, SIGHUP opens a new one, and no line is lost."""
    path, rotated = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.1"
    command = run(Outputs(jsonl=str(path)))
    asyncio.run(command.verdicts_during_two_heartbeats())
    path.rename(rotated)
    command.process.send_signal(signal.SIGHUP)
    asyncio.run(command.verdicts_during_two_heartbeats())
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(10) == 0
    lines = (rotated.read_text() + path.read_text()).splitlines()
    assert path.stat().st_size > 0
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_sighup_of_a_terminal_ends_the_program(film: Path) -> None:
    """SIGHUP of a closed window or connection ends the program instead of rotating a log."""
    child, controller = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "unmask", "monitor", str(film), "--port", "0"])
    shown = b""
    while b"WebSocket" not in shown:
        shown += os.read(controller, 4096)
    os.close(controller)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_mistake_on_a_standard_error_that_is_full(tmp_path: Path) -> None:
    """The exit code of a mistake does not wait for somebody to read the message."""
    reading, writing = full_pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "unmask", "scan", str(tmp_path)],
            cwd=ROOT,
            stderr=writing,
            check=False,
            timeout=TIMEOUT_S,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 2
