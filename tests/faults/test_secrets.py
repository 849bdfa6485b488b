"""Faults: secrets in addresses, and hostile names. None may reach any output of the real command."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import unmask
from unmask import watch

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0

# The port is closed, so that every camera is offline with a reason and a warning in the log.
CAMERA = "127.0.0.1:9"
SECRETS = ("s3cr3t", "K3Y", "al1ce", "t0k3n")
# Address, and what it carries.
ADDRESSES = [
    pytest.param(f"rtsp://al1ce:s3cr3t@{CAMERA}/live", id="user and password"),
    pytest.param(f"rtsp://al1ce@{CAMERA}/live", id="user without a password"),
    pytest.param(f"rtsp://al1ce:s3cr3t@@x@{CAMERA}/live", id="password with at signs"),
    pytest.param(f"rtsp://al1ce:%73s3cr3t%2F@{CAMERA}/live", id="password in percent encoding"),
    pytest.param(
        f"rtsp://{CAMERA}/user=al1ce&password=s3cr3t&channel=1&stream=0.sdp", id="password in the path"
    ),
    pytest.param(
        f"rtsp://{CAMERA}/user=al1ce_password=s3cr3t_channel=1", id="password in the path, underscores"
    ),
    pytest.param(f"rtsp://{CAMERA}/K3Y", id="UniFi key"),
    pytest.param(f"rtsps://{CAMERA}/K3Y?enableSrtp", id="UniFi key over TLS"),
    pytest.param(f"rtmp://{CAMERA}/live/K3Y", id="RTMP stream key"),
    pytest.param(f"rtmp://al1ce:s3cr3t@{CAMERA}/live/K3Y?token=t0k3n", id="RTMP stream key, user and token"),
    pytest.param(
        f"http://{CAMERA}/videostream.cgi?loginuse=al1ce&loginpas=s3cr3t", id="password in the query"
    ),
    pytest.param(f"http://{CAMERA}/v.mp4?X-Amz-Signature=t0k3n", id="signed download"),
    pytest.param(f"http://{CAMERA}/K3Y/master.m3u8", id="HLS with a key in a folder"),
    pytest.param(f"http://{CAMERA}/live.flv;jsessionid=t0k3n", id="path parameter"),
    pytest.param(f"http://{CAMERA}/live#t0k3n", id="fragment"),
    pytest.param(f"srt://{CAMERA}?passphrase=s3cr3t&streamid=K3Y", id="SRT passphrase"),
    pytest.param(f"tcp://{CAMERA}/K3Y?timeout=1&t=t0k3n", id="option of FFmpeg"),
    pytest.param("rtmp://127.0.0.1:0/live/K3Y?listen=1&token=t0k3n", id="RTMP listener"),
    pytest.param("whip:K3Y-t0k3n", id="WHIP key"),
    pytest.param("whip:K3Y/s3cr3t", id="malformed WHIP key"),
    pytest.param("rtsp://al1ce:s3cr3t/x@127.0.0.1/live", id="password with a slash"),
    pytest.param("rtsp://al1ce:x@s3cr3t/K3Y@127.0.0.1/live", id="password with an at sign and a slash"),
    pytest.param("rtsp:/al1ce:s3cr3t@127.0.0.1/live", id="one slash missing"),
    pytest.param("rtsp//al1ce:s3cr3t@127.0.0.1/live", id="colon missing"),
    pytest.param("al1ce:s3cr3t@127.0.0.1/K3Y", id="scheme missing"),
    pytest.param("door=rtsp://al1ce:s3cr3t@127.0.0.1:9/K3Y", id="named"),
]
# Names that are hostile to a log, a terminal or a metrics page.
NAMES = [
    pytest.param("a\nforged live", "a forged live", id="line break"),
    pytest.param("a\x1b]0;title\x07b", "a\ufffd]0;title\ufffdb", id="terminal codes"),
    pytest.param("a\u202e\u2066b", "ab", id="writing direction"),
    pytest.param("a\udcff\udc80b", "a\ufffd\ufffdb", id="invalid UTF-8"),
    pytest.param("x" * 500, "x" * 63 + "…", id="very long"),
    pytest.param("same", "same", id="used twice, first"),
    pytest.param("sa\u200dme", "same-2", id="used twice, second"),
]


class Outputs:
    """All that a run of `unmask monitor` shows: log, recording, pages and messages."""

    def __init__(self, sources: list[str], workplace: Path) -> None:
        recording = workplace / "record.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "unmask", "monitor", *sources, "--port", "0", "--jsonl", str(recording)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        self.log = ""
        try:
            for line in process.stderr:
                self.log += line
                if address := re.search(r"dashboard: (http://\S+)/$", line):
                    break
            assert address, self.log
            self.messages = asyncio.run(_messages(address[1]))
            self.pages = {path: _get(address[1] + path) for path in ("/metrics", "/healthz")}
        finally:
            process.terminate()
            self.log += process.communicate(timeout=TIMEOUT_S)[1]
        self.recording = recording.read_text(encoding="ascii")

    def all_text(self) -> str:
        return "\n".join([self.log, self.recording, json.dumps(self.messages), *self.pages.values()])


async def _messages(url: str) -> list[dict[str, object]]:
    """Receive from hello to a second heartbeat: every source has been tried by then."""
    received: list[dict[str, object]] = []
    async with asyncio.timeout(TIMEOUT_S), watch(url) as messages:
        async for message in messages:
            received.append(message)
            if sum(message["type"] == "heartbeat" for message in received) == 2:
                break
    return received


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        return str(response.read().decode())


@pytest.fixture(scope="module")
def of_addresses(tmp_path_factory: pytest.TempPathFactory, make_face_video: Callable[..., Path]) -> Outputs:
    """Outputs of one run with all addresses, and a file that keeps it running."""
    folder = tmp_path_factory.mktemp("addresses")
    film = make_face_video(folder / "film.mp4", seconds=60)
    return Outputs([str(film), *(str(case.values[0]) for case in ADDRESSES)], folder)


@pytest.fixture(scope="module")
def of_names(tmp_path_factory: pytest.TempPathFactory, make_face_video: Callable[..., Path]) -> Outputs:
    """Outputs of one run with files of all hostile names."""
    folder = tmp_path_factory.mktemp("names")
    film = make_face_video(folder / "film.mp4", seconds=60)
    return Outputs([str(film), *(f"{case.values[0]}=rtsp://{CAMERA}/live" for case in NAMES)], folder)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_output_contains_a_secret(address: str, of_addresses: Outputs) -> None:
    """Log, messages, metrics, health and recording contain only scheme, host and port of an address."""
    text = of_addresses.all_text()
    host = address.find(CAMERA)
    for part in re.split(r"[:/@?&=#;_]|%\w\w", address[:host] + address[host + len(CAMERA) :]):
        if any(secret in part for secret in SECRETS):
            assert part not in text
    assert not any(secret in text for secret in SECRETS)


def test_every_address_is_named_by_its_host(of_addresses: Outputs) -> None:
    """Names are unique and the same in messages, metrics, health and recording."""
    streams = json.loads(of_addresses.pages["/healthz"])["streams"]
    assert {"film.mp4", "door", "127.0.0.1", "127.0.0.1-2", "127.0.0.1-17"} <= set(streams)
    recorded = [json.loads(line) for line in of_addresses.recording.splitlines()]
    assert {message["stream"] for message in recorded if message["type"] == "stream"} == set(streams)
    for name in streams:
        assert f'stream="{name}"' in of_addresses.pages["/metrics"]
    assert "Traceback" not in of_addresses.log


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_names_are_harmless_everywhere(name: str, shown: str, of_names: Outputs) -> None:
    """A hostile name becomes one printable line, unique, in messages, metrics, health, log and recording."""
    assert shown in json.loads(of_names.pages["/healthz"])["streams"]
    assert f'stream="{shown}"' in of_names.pages["/metrics"]
    assert any(line.startswith(f"{shown}: connecting", 9) for line in of_names.log.splitlines()), of_names.log
    assert all(line.isprintable() for line in of_names.log.splitlines())
    assert name == shown or name.encode("utf-8", "surrogateescape") not in of_names.all_text().encode()


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "JSON"])
def test_scan_of_an_address_contains_no_secret(as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """An address given to `scan`, which takes files, is refused without being repeated."""
    addresses = [
        "rtsp://al1ce:s3cr3t@127.0.0.1/K3Y",
        "rtmp://127.0.0.1/live/K3Y",
        "al1ce:s3cr3t@127.0.0.1/K3Y",
    ]
    assert unmask.run(["scan", *["--json"] * as_json, *addresses]) == 2
    out, err = capfd.readouterr()
    assert [secret for secret in SECRETS if secret in out + err] == [], out + err
    assert err.count("not a file; give a video file; `unmask monitor` watches other sources") == 3
