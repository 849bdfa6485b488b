"""Tests of the whole system: a camera, the command, a client and a browser, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.model.bundle import DEFAULT_BUNDLE, load_bundle
from tests.support.browser import Browser
from tests.support.wire import validate
from unmask import watch

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
GIVE_UP_S = 5.0
SCORED = {"real", "uncertain", "fake"}
CAMERA = "127.0.0.1"  # A camera is named after its host, because the path of its URL may be a secret.


class MonitorProcess:
    """Running `unmask monitor` process and the URLs that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.urls: dict[str, str] = {}
        self.lines: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line)
            name, _, url = line.rstrip().partition(": ")
            if url.startswith(("http://", "ws://")):
                self.urls[name.partition(" ")[2]] = url
            if "WebSocket" in self.urls:
                break
        # Without a reader the process would block once the pipe is full.
        self._reading = threading.Thread(target=lambda: self.lines.extend(process.stderr or ()))
        self._reading.start()

    def finish(self) -> None:
        """Wait for the end of the process and of its output."""
        self.process.wait(TIMEOUT_S)
        self._reading.join(TIMEOUT_S)


@pytest.fixture
def monitor() -> Callable[..., Any]:
    """Context manager `monitor(source, ...)` that runs the command, the installed one if there is one."""
    script = Path(sysconfig.get_path("scripts")) / "unmask"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "unmask"]

    @contextmanager
    def run(*arguments: object) -> Iterator[MonitorProcess]:
        process = subprocess.Popen(
            [*command, "monitor", *map(str, arguments), "--port", "0"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            running = MonitorProcess(process)
            yield running
            process.terminate()
            running.finish()
            assert process.returncode == 0, running.lines
            assert "Traceback" not in "".join(running.lines)
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    return run


class Listener:
    """Received messages of a client, each checked against the schema."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages
        self.received: list[dict[str, Any]] = []

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Receive until a message matches; return the messages of this call, the matching one included."""
        start = len(self.received)
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self._messages:
                validate(message)
                self.received.append(message)
                if wanted(message):
                    return self.received[start:]
        raise AssertionError("the messages ended")


def scored(message: dict[str, Any]) -> bool:
    return message["type"] == "verdict" and message["state"] in SCORED


def state(wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] == "stream" and message["state"] == wanted


def test_camera_is_watched_lost_and_reconnected(
    monitor: Callable[..., Any], rtsp_server: Callable[..., Any], face_video: Path, tmp_path: Path
) -> None:
    """A client receives verdicts, none while the camera is offline, and again after it has reconnected."""
    camera = rtsp_server(face_video)
    recording = tmp_path / "recording.jsonl"

    async def listen(url: str) -> list[dict[str, Any]]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            listener = Listener(messages)
            await listener.until(scored)
            for _ in range(10):
                await listener.until(scored)
            camera.kill()
            await listener.until(state("offline"))
            # Three heartbeats, which are some seconds of outage.
            outage = []
            for _ in range(3):
                outage += await listener.until(lambda message: message["type"] == "heartbeat")
            camera.start()
            outage += await listener.until(state("live"))
            assert not any(map(scored, outage))
            await listener.until(scored)
            return listener.received

    with monitor(camera.url(), "--jsonl", recording) as running:
        received = asyncio.run(listen(running.urls["WebSocket"]))

    assert [message["type"] for message in received[:2]] == ["hello", "snapshot"]
    assert received[0]["hysteresis"] == load_bundle(DEFAULT_BUNDLE).calibration.hysteresis
    broadcast = received[2:]
    seqs = [message["seq"] for message in broadcast]
    assert seqs == sorted(set(seqs))
    verdicts = [message for message in broadcast if scored(message)]
    assert {message["stream"] for message in verdicts} == {CAMERA}
    times = [message["pts_s"] for message in verdicts[:11]]
    assert times == sorted(set(times))
    assert all(message["captured"] is not None for message in verdicts)
    assert all(message["latency_ms"]["total"] > 0 for message in verdicts)
    # The recording contains every broadcast message, those that the client received among them.
    recorded = [json.loads(line) for line in recording.read_text().splitlines()]
    assert [message["seq"] for message in recorded] == list(range(1, len(recorded) + 1))
    by_seq = {message["seq"]: message for message in recorded}
    assert all(by_seq[message["seq"]] == message for message in broadcast)
    warnings = [line for line in running.lines if "trying again" in line]
    assert len(warnings) == 1


def test_two_streams_in_one_process(
    monitor: Callable[..., Any], rtsp_server: Callable[..., Any], face_video: Path, browser: Browser
) -> None:
    """A camera and a file each get their own verdicts, which the dashboard and the overlay show."""
    camera = rtsp_server(face_video)

    async def listen(url: str) -> set[str]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            listener = Listener(messages)
            streams: set[str] = set()
            while len(streams) < 2:
                streams.add((await listener.until(scored))[-1]["stream"])
            return streams

    is_scored = "['real', 'uncertain', 'fake'].includes"
    with monitor(camera.url(), face_video) as running:
        assert asyncio.run(listen(running.urls["WebSocket"])) == {CAMERA, "face.mp4"}
        dashboard = browser.open(running.urls["dashboard"])
        dashboard.wait_for(f"{is_scored}(document.querySelector('.face')?.dataset.state)")
        assert CAMERA in dashboard.evaluate("document.body.innerText")
        # The frame that was scored, with its box.
        dashboard.wait_for("Number(document.querySelector('canvas').dataset.boxes) > 0")
        assert dashboard.console_errors == []
        dashboard.close()
        overlay = browser.open(running.urls["overlay for OBS"])
        badge = "document.querySelector('unmask-verdict').shadowRoot.querySelector('li')"
        overlay.wait_for(f"{is_scored}({badge}?.dataset.state)")
        assert overlay.console_errors == []
        overlay.close()


def test_demo_works_without_a_camera_or_a_file(monitor: Callable[..., Any]) -> None:
    """The demo source alone gives a verdict on a moving face."""

    async def listen(url: str) -> dict[str, Any]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            return (await Listener(messages).until(scored))[-1]

    with monitor("demo") as running:
        verdict = asyncio.run(listen(running.urls["WebSocket"]))
    assert verdict["stream"] == "demo"
    assert 0 <= verdict["p_fake"] <= 1
