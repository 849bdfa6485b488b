"""Network access: under strace the program contacts only the requested hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
STRACE_OPTIONS = ("-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o")
# Addresses of the loopback interface.
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')


def contacted(trace: str) -> list[str]:
    """Return the traced calls that address another host: connections, datagrams and name look-ups."""
    calls = [line for line in trace.splitlines() if "sa_family=AF_INET" in line]
    return [line for line in calls if not LOOPBACK.search(line) or "htons(53)" in line]


@pytest.mark.parametrize(
    "arguments",
    [
        ("monitor", "demo", "--duration", "3", "--port", "0"),
        ("scan", "--json", "VIDEO"),
    ],
    ids=["monitor", "scan"],
)
def test_contacts_no_other_host(
    arguments: tuple[str, ...],
    face_video: Path,
    tmp_path: Path,
    skip_or_fail: Callable[[str], NoReturn],
) -> None:
    """`monitor` and `scan` look up no name, connect to no other host and leave no foreign files behind."""
    strace = shutil.which("strace")
    if strace is None:
        skip_or_fail("strace is not installed (Debian: apt install strace)")
    trace, home = tmp_path / "trace", tmp_path / "home"
    # Without this test's own settings: the program has to take care of itself.
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    command = [str(face_video) if argument == "VIDEO" else argument for argument in arguments]
    outcome = subprocess.run(
        [strace, *STRACE_OPTIONS, trace, sys.executable, "-m", "unmask", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert contacted(trace.read_text()) == []
    left = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert left <= {("cache", "unmask")}


def test_libraries_of_training_contact_no_other_host(
    tmp_path: Path, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    """Every module can be imported, and a network of timm be created, without contacting another host."""
    strace = shutil.which("strace")
    if strace is None:
        skip_or_fail("strace is not installed (Debian: apt install strace)")
    script = """
import importlib, pkgutil
for package in ("train", "export", "benchmarks"):
    for module in pkgutil.walk_packages([package], prefix=package + "."):
        # A program for the system's Python, which has Debian's bindings of GStreamer.
        if module.name != "benchmarks.helpers.rtsp_server":
            importlib.import_module(module.name)
import timm
timm.create_model("resnet18", pretrained=False, num_classes=0)
"""
    trace = tmp_path / "trace"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    outcome = subprocess.run(
        [strace, *STRACE_OPTIONS, trace, sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert contacted(trace.read_text()) == []


def test_the_trace_check_finds_foreign_addresses() -> None:
    """The check of the trace finds name look-ups and connections to other hosts, and passes loopback."""
    loopback = (
        'connect(3, {sa_family=AF_INET, sin_port=htons(8765), sin_addr=inet_addr("127.0.0.1")}, 16) = 0'
    )
    look_up = 'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0'
    foreign = 'connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1'
    assert contacted("\n".join([loopback, look_up, foreign])) == [look_up, foreign]
