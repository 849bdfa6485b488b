"""The whole chain as it is used: a camera, the command, a client and a browser, each a process of its own."""

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

from tests.support.browser import Browser
from tests.support.wire import validate
from unmask import watch

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
GIVE_UP_S = 5.0
SCORED = {"real", "uncertain", "fake"}


class Running:
    """A running `unmask monitor` and the links that it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.links: dict[str, str] = {}
        self.said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            name, _, url = line.rstrip().partition(": ")
            if url.startswith(("http://", "ws://")):
                self.links[name.partition(" ")[2]] = url
            if "WebSocket" in self.links:
                break
        # Read on, or the program would wait once the pipe is full.
        self._reading = threading.Thread(target=lambda: self.said.extend(process.stderr or ()))
        self._reading.start()

    def finish(self) -> None:
        """Wait until it has nothing more to say."""
        self.process.wait(TIMEOUT_S)
        self._reading.join(TIMEOUT_S)


@pytest.fixture
def monitor() -> Callable[..., Any]:
    """Give `with monitor(source, ...) as running`, the installed command where there is one."""
    script = Path(sysconfig.get_path("scripts")) / "unmask"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "unmask"]

    @contextmanager
    def run(*arguments: object) -> Iterator[Running]:
        process = subprocess.Popen(
            [*command, "monitor", *map(str, arguments), "--port", "0"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            running = Running(process)
            yield running
            process.terminate()
            running.finish()
            assert process.returncode == 0, running.said
            assert "Traceback" not in "".join(running.said)
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    return run


class Listener:
    """A client that remembers what it heard."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages
        self.heard: list[dict[str, Any]] = []

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Listen until such a message comes; give all that came on the way, it included."""
        start = len(self.heard)
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self._messages:
                validate(message)
                self.heard.append(message)
                if wanted(message):
                    return self.heard[start:]
        raise AssertionError("the messages ended")


def scored(message: dict[str, Any]) -> bool:
    return message["type"] == "verdict" and message["state"] in SCORED


def state(wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] == "stream" and message["state"] == wanted


def test_a_camera_is_watched_lost_and_found_again(
    monitor: Callable[..., Any], rtsp_server: Callable[..., Any], face_video: Path, tmp_path: Path
) -> None:
    """Verdicts reach a client, none while the camera is gone, and again once it is back."""
    camera = rtsp_server(face_video)
    record = tmp_path / "record.jsonl"

    async def listen(url: str) -> list[dict[str, Any]]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            listener = Listener(messages)
            await listener.until(scored)
            for _ in range(10):
                await listener.until(scored)
            camera.kill()
            await listener.until(state("offline"))
            # The heartbeats of some seconds of outage.
            outage = []
            for _ in range(3):
                outage += await listener.until(lambda message: message["type"] == "heartbeat")
            camera.start()
            outage += await listener.until(state("live"))
            assert not any(map(scored, outage))
            await listener.until(scored)
            return listener.heard

    with monitor(camera.url(), "--jsonl", record) as running:
        heard = asyncio.run(listen(running.links["WebSocket"]))

    assert [message["type"] for message in heard[:2]] == ["hello", "snapshot"]
    broadcast = heard[2:]
    seqs = [message["seq"] for message in broadcast]
    assert seqs == sorted(set(seqs))
    verdicts = [message for message in broadcast if scored(message)]
    assert {message["stream"] for message in verdicts} == {"cam"}
    times = [message["pts_s"] for message in verdicts[:11]]
    assert times == sorted(set(times))
    assert all(message["captured"] is not None for message in verdicts)
    assert all(message["latency_ms"]["total"] > 0 for message in verdicts)
    # What the client heard, and more, is on record.
    recorded = [json.loads(line) for line in record.read_text().splitlines()]
    assert [message["seq"] for message in recorded] == list(range(1, len(recorded) + 1))
    known = {message["seq"]: message for message in recorded}
    assert all(known[message["seq"]] == message for message in broadcast)
    warnings = [line for line in running.said if "trying again" in line]
    assert len(warnings) == 1


def test_two_streams_in_one_process(
    monitor: Callable[..., Any], rtsp_server: Callable[..., Any], face_video: Path
) -> None:
    """A camera and a file side by side each have verdicts of their own."""
    camera = rtsp_server(face_video)

    async def listen(url: str) -> set[str]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            listener, streams = Listener(messages), set()
            while len(streams) < 2:
                streams.add((await listener.until(scored))[-1]["stream"])
            return streams

    with monitor(camera.url(), face_video) as running:
        assert asyncio.run(listen(running.links["WebSocket"])) == {"cam", "face.mp4"}


def test_a_browser_sees_the_verdict(
    monitor: Callable[..., Any], rtsp_server: Callable[..., Any], face_video: Path, browser: Browser
) -> None:
    """Dashboard and overlay, opened by the links that were printed, show what is thought of the face."""
    camera = rtsp_server(face_video)
    outputs = "['real', 'uncertain', 'fake'].includes"
    with monitor(camera.url()) as running:
        dashboard = browser.open(running.links["dashboard"])
        dashboard.wait_for(f"{outputs}(document.querySelector('.face')?.dataset.state)")
        assert "cam" in dashboard.evaluate("document.body.innerText")
        assert dashboard.complaints == []
        dashboard.close()
        overlay = browser.open(running.links["overlay for OBS"])
        badge = "document.querySelector('unmask-verdict').shadowRoot.querySelector('li')"
        overlay.wait_for(f"{outputs}({badge}?.dataset.state)")
        assert overlay.complaints == []
        overlay.close()


def test_the_demo_runs_out_of_the_box(monitor: Callable[..., Any]) -> None:
    """What a newcomer tries first: no camera, no file, and a verdict on a moving face."""

    async def listen(url: str) -> dict[str, Any]:
        async with watch(url, give_up_s=GIVE_UP_S) as messages:
            return (await Listener(messages).until(scored))[-1]

    with monitor("demo") as running:
        verdict = asyncio.run(listen(running.links["WebSocket"]))
    assert verdict["stream"] == "demo"
    assert 0 <= verdict["p_fake"] <= 1
