"""Tests of `unmask monitor --jobs`: cameras watched by processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

import unmask
from runtime.client_messages import PreviewRequest
from runtime.commands.monitor.workers import WorkersControl
from runtime.config.sources import WatchedSource
from runtime.errors import TokenFileInvalid
from runtime.fleet.cameras.head import FleetMonitor
from runtime.fleet.cameras.processes import CameraProcesses, ThisMachine
from runtime.fleet.cameras.worker import FleetSetup
from runtime.fleet.cameras.workers import Slot
from runtime.messages import BroadcastMessage, StreamMessage, Thresholds, VerdictMessage
from runtime.model.bundle import load_bundle
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.version import version
from streams.input.source import parse_source
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[4]
OFFLINE_LIMIT_S = 3.0
LIVE_LIMIT_S = 15.0
PATIENCE_S = 60.0
CAMERAS = ("cam-0", "cam-1")


def setup_of(bundle: Path, *, digest: str | None = None) -> FleetSetup:
    return FleetSetup(
        folder=Path.cwd(),
        model=bundle,
        digest=digest or load_bundle(bundle).digest,
        version=version(),
        engine="onnxruntime",
        threads=1,
        cores_per_camera=1.0,
        thresholds=Thresholds(real=0.2, fake=0.8),
    )


class Watched:
    """Two cameras, each watched by a process of its own, and their messages."""

    def __init__(self, bundle: Path, source: str, *, digest: str | None = None) -> None:
        self.messages: list[tuple[float, BroadcastMessage]] = []
        self.previews = PreviewPublisher()
        self.fleet = FleetMonitor(
            ThisMachine(2),
            CameraProcesses(setup_of(bundle, digest=digest), sources=2, jobs=2),
            [WatchedSource(source=parse_source(source, name=name)) for name in CAMERAS],
            engine="onnxruntime",
            thresholds={},
            publish=lambda message: self.messages.append((time.monotonic(), message)),
            previews=self.previews,
            slots=lambda nodes, engine: [Slot(ThisMachine.ID, index, 1, gpu=False) for index in range(2)],
        )

    def verdicts(self, stream: str, since: float = 0.0) -> list[VerdictMessage]:
        """Return the scored verdicts of a stream."""
        return [
            message
            for at, message in self.messages
            if isinstance(message, VerdictMessage) and message.stream == stream and message.p_fake is not None
            if at >= since
        ]

    async def until(self, condition: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
        """Wait for a condition while the fleet runs."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert self.fleet.failure is None, self.fleet.failure
            assert time.monotonic() < deadline, self.messages[-10:]
            await asyncio.sleep(0.02)


def camera_processes() -> list[int]:
    """Return the processes of the fleet of this process."""
    return [child.pid for child in multiprocessing.active_children() if "camera" in child.name and child.pid]


def test_a_process_that_is_killed_and_one_that_hangs(small_bundle: Path) -> None:
    """The camera is soon offline, and live again in a new process; the other one is not interrupted."""
    watched = Watched(small_bundle, "demo")

    def offline(since: float) -> list[str]:
        return [
            message.stream
            for at, message in watched.messages
            if isinstance(message, StreamMessage) and message.state == "offline" and at >= since
        ]

    async def run() -> None:
        async with watched.fleet:
            await watched.until(lambda: all(watched.verdicts(name) for name in CAMERAS))
            for number in (signal.SIGKILL, signal.SIGSTOP):
                began = time.monotonic()
                assert len(camera_processes()) == 2
                os.kill(camera_processes()[0], number)
                await watched.until(lambda since=began: offline(since), OFFLINE_LIMIT_S)  # type: ignore[misc]
                lost, went = offline(began)[0], time.monotonic()
                await watched.until(
                    lambda name=lost, since=went: watched.verdicts(name, since),  # type: ignore[misc]
                    LIVE_LIMIT_S,
                )
                assert set(offline(began)) == {lost}

    asyncio.run(run())
    wait_for(lambda: not camera_processes(), 5)


def children_of(process: int) -> list[int]:
    """Return the workers of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and b"spawn_main" in (folder / "cmdline").read_bytes():
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == process:
                    found.append(int(folder.name))
    return found


def test_signals_of_the_group_and_the_end_of_the_program(small_bundle: Path, tmp_path: Path) -> None:
    """SIGHUP is for the program alone, at any time; a worker ends with it even if it is killed."""
    record = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "unmask", "monitor", "a=demo", "b=demo", "--jobs", "2"]
    command += ["--model", str(small_bundle), "--port", "0", "--jsonl", str(record)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0) as program:
        try:
            workers = wait_for(lambda: found if len(found := children_of(program.pid)) == 2 else None, 60)
            os.killpg(program.pid, signal.SIGHUP)
            # The recording is opened again.
            wait_for(lambda: record.exists() and record.read_text().count('"p_fake":0') > 8, 60)
            os.killpg(program.pid, signal.SIGHUP)
            time.sleep(0.3)
            assert children_of(program.pid) == workers
        finally:
            program.kill()
        assert program.stderr is not None
        errors = program.stderr.read()
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 10)
    assert "Traceback" not in errors
    assert "has ended" not in errors


def test_frames_on_request(small_bundle: Path) -> None:
    """A client receives frames of the stream that it asked for, until it asks no more."""
    watched = Watched(small_bundle, "demo")
    received: list[EncodedPreview] = []

    async def run() -> None:
        async with watched.fleet:
            with watched.previews, watched.previews.connect(received.append) as requests:
                await watched.until(lambda: all(watched.verdicts(name) for name in CAMERAS))
                assert not received
                requests.request(PreviewRequest(stream="cam-1", width=320, rate_hz=4))
                await watched.until(lambda: len(received) >= 2)
                requests.request(PreviewRequest(stream="cam-1", width=0))
                # No frame comes any more once the workers know.
                count = -1
                while count != len(received):
                    count = len(received)
                    await asyncio.sleep(1.0)

    asyncio.run(run())
    assert {(preview.stream, preview.width) for preview in received} == {("cam-1", 320)}
    times = [preview.pts_s for preview in received]
    assert times == sorted(set(times))
    scored = {verdict.pts_s for verdict in watched.verdicts("cam-1")}
    assert set(times) & scored
    # A frame that was on its way when the request ended is counted, but not sent.
    assert watched.previews.encoded - len(received) in (0, 1)


def test_another_model(small_bundle: Path) -> None:
    """Processes that cannot load the model of the command end the run with the reason."""
    watched = Watched(small_bundle, "demo", digest="0" * 64)

    async def run() -> None:
        async with watched.fleet:
            while watched.fleet.failure is None:
                await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert "copy the same directory" in str(watched.fleet.failure)


def test_videos_to_their_end(small_bundle: Path, face_video: Path, tmp_path: Path) -> None:
    """Two videos and a file that is none are watched by two processes; the command ends with their end."""
    (tmp_path / "text.mp4").write_text("no video")
    arguments = [f"a={face_video}", f"b={face_video}", str(tmp_path / "text.mp4")]
    command = [sys.executable, "-m", "unmask", "monitor", *arguments, "--jobs", "2"]
    done = subprocess.run(
        [*command, "--model", str(small_bundle), "--port", "0", "--jsonl", "-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    scored = {message["stream"] for message in messages if message.get("p_fake") is not None}
    assert scored == {"a", "b"}
    last = {message["stream"]: message["state"] for message in messages if message["type"] == "stream"}
    assert last == {"a": "ended", "b": "ended", "text.mp4": "offline"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["browser"], "only one process can read standard input, browser, whip: and"),
        (["-"], "only one process can read standard input"),
        (["demo", "--annotate", "out.mp4"], "outputs.annotate: needs the frames"),
        (["demo", "--evidence", "evidence"], "evidence: needs the frames"),
        (["--scan-uploads"], "there is no source that the processes of --jobs"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_mistakes(
    arguments: list[str],
    words: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sources and options that need a single process are refused with one line and exit code 2."""
    monkeypatch.chdir(tmp_path)
    assert unmask.run(["monitor", *arguments, "--jobs", "2"]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) <= 2
    assert words in errors[0]


@pytest.mark.parametrize(
    ("file", "has_tokens", "lines"),
    [
        (None, False, []),
        (None, True, ["tokens loaded again"]),
        (Path("a.toml"), False, ["restart unmask to use changes of a.toml"]),
    ],
)
def test_a_hang_up_logs_what_was_loaded(
    caplog: pytest.LogCaptureFixture, file: Path | None, has_tokens: bool, lines: list[str]
) -> None:
    """It is also sent after a rotation of logs, without a file that could have changed."""
    caplog.set_level("INFO")
    tokens = (Mock(),) if has_tokens else None
    setup, server = Mock(file=file), Mock()
    setup.load.return_value.security.tokens = server.gate.tokens = tokens
    asyncio.run(WorkersControl().reload(setup, server))
    assert [record.getMessage() for record in caplog.records] == lines


def test_a_wrong_file_is_logged_on_sighup(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Whatever is wrong with the configuration or its files, the cameras go on."""
    tokens = tmp_path / "tokens"
    tokens.write_text("short\n")
    setup = Mock()
    server = Mock()
    for error in (TokenFileInvalid(tokens, 1, "a token needs 16 characters"), ValueError("x")):
        setup.load.side_effect = error
        asyncio.run(WorkersControl().reload(setup, server))
    wrong, internal = (record.getMessage() for record in caplog.records)
    assert wrong.startswith(f"{tokens}:1: ")
    assert "stays in use" in wrong
    assert "internal error" in internal
    assert not server.mock_calls
