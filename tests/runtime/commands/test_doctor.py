"""Tests of `unmask doctor`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import av
import pytest

from runtime.commands.doctor.inputs import (
    check_cameras,
    check_decoders,
    check_hwaccels,
    check_screens,
    check_srt,
)
from runtime.commands.doctor.machine import check_cpu, check_gpu, check_model, check_port
from runtime.engines.tensorrt.driver import Gpu
from streams.input.devices.screen import parse_screen
from streams.input.devices.webcam import Camera
from tests.support.displays import Display, missing_program

ROOT = Path(__file__).parents[3]
CPU = "model name\t: Test CPU\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n"


def test_the_command_reports_every_subject() -> None:
    """Each line of JSON has a finding and what to do; the exit code is 0 where unmask works."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "unmask", "doctor", "--json", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    subjects = {finding["subject"].partition(" ")[0] for finding in findings}
    assert subjects == {
        *("python", "cpu", "gpu", "engine", "model", "port", "clients", "cache", "extra"),
        *("ffmpeg", "srt", "hwaccel", "camera", "screen"),
    }
    assert all(finding["advice"] and finding["text"] for finding in findings)
    (in_use,) = [finding for finding in findings if finding["subject"] == "port"]
    assert in_use["text"] == f"127.0.0.1:{port} is in use"


@pytest.mark.parametrize(
    ("cpuinfo", "cores", "exact", "level", "words"),
    [
        (CPU, 2, True, "ok", "Test CPU, 2 usable cores, AVX2 VNNI AMX; int8 arithmetic"),
        (CPU, 1, True, "optional", "1 usable cores"),
        ("", 4, False, "ok", "no known vector instructions; float32"),
    ],
)
def test_the_cpu(cpuinfo: str, cores: int, exact: bool, level: str, words: str) -> None:
    """Instructions and cores decide how many streams fit."""
    finding = check_cpu(cpuinfo, cores, exact=exact)
    assert finding.level == level
    assert words in finding.text


def test_a_gpu() -> None:
    """Name, architecture and memory are those of the driver."""
    finding = check_gpu(lambda: Gpu("Test GPU", (9, 0), 80 * 2**30, (13, 0)))
    assert (finding.level, finding.text) == ("ok", "Test GPU, sm_90, 80 GiB, CUDA 13.0")


def test_a_model_that_is_missing(tmp_path: Path) -> None:
    """Without a model unmask cannot work."""
    finding = check_model(tmp_path / "none")
    assert finding.level == "problem"
    assert "bundled one" in finding.advice


def test_an_address_of_another_machine() -> None:
    """The reason is that of the system."""
    finding = check_port("192.0.2.1", 8765)
    assert finding.level == "optional"
    assert "192.0.2.1:8765: " in finding.text


@pytest.mark.parametrize("host", ["::1", "::", "", "localhost"])
def test_an_ipv6_address(host: str) -> None:
    """A port is free or in use on each address on which the server would listen."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as busy:
        port = busy.getsockname()[1]
        finding = check_port(host, port)
        assert finding.text.endswith(f":{port} is in use")
    assert check_port(host, port).text.endswith(f":{port} is free")


def test_an_impossible_host_name() -> None:
    """It is a finding, not an error, and the advice names the option of the host."""
    finding = check_port("a..b", 8765)
    assert finding.text == "a..b:8765: it is not a host name"
    assert "--host" in finding.advice


def test_decoders() -> None:
    """A missing decoder is a problem; PyAV's wheel has all, but not libsrt."""
    assert check_decoders({"h264", "hevc", "mjpeg", "vp8", "vp9"}).text.endswith("lacks av1")
    assert check_srt().text == "FFmpeg is built without libsrt"


def test_hardware_decoders() -> None:
    """The devices are shown with the option to type; without any, the finding is no problem."""
    assert check_hwaccels(["cuda"]).advice == "unmask monitor SOURCE --hwaccel cuda"
    assert check_hwaccels([]).level == "optional"


def test_cameras(tmp_path: Path) -> None:
    """A camera is shown with the text to type; without permission the advice is the group."""
    readable = tmp_path / "video0"
    readable.touch()
    camera = Camera(source="webcam:0", name="HD Webcam", url=str(readable), links=("/dev/v4l/by-id/usb-1",))
    other = Camera(source="webcam:1", name="Other", url=str(tmp_path / "video1"))
    good, refused = check_cameras("linux", [camera, other])
    assert good.text == f"HD Webcam ({readable}, /dev/v4l/by-id/usb-1)"
    assert good.advice == 'unmask monitor webcam:0, or "webcam:HD Webcam"'
    assert "usermod -aG video" in refused.advice
    assert [finding.text for finding in check_cameras("linux", [])] == ["none found"]
    assert [finding.level for finding in check_cameras("sunos", [])] == ["optional"]


def test_screens(skip_or_fail: Callable[[str], None], tmp_path: Path) -> None:
    """Each X server is opened; a Wayland session gets other advice."""
    if program := missing_program():
        skip_or_fail(f"{program} is not installed (Debian: apt install xvfb ffmpeg)")
    display = Display(size="320x240")
    try:
        (tmp_path / "X4711").touch()
        found = list(check_screens("linux", {"DISPLAY": f":{display.number}"}, tmp_path))
    finally:
        display.kill()
    assert [finding.text for finding in found] == [
        f":{display.number}, 320x240",
        ":4711 cannot be read: no server or no permission",
    ]
    assert found[0].advice == f"unmask monitor screen:{display.number}"
    wayland, none = check_screens("linux", {"XDG_SESSION_TYPE": "wayland"}, tmp_path / "none")
    assert wayland.advice == "unmask monitor browser"
    assert none.text == "no X server found"


@pytest.mark.parametrize("display", [":0", ":10.0", "localhost:10.0"])
def test_the_advice_for_a_screen_can_be_typed(
    display: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the display that was checked, also one of another machine."""
    monkeypatch.setattr(av, "open", MagicMock())
    (finding,) = check_screens("linux", {"DISPLAY": display}, tmp_path)
    assert finding.advice.startswith("unmask monitor screen:")
    source = finding.advice.removeprefix("unmask monitor ")
    assert parse_screen(source, "linux", {}).url == display
