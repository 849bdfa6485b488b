"""Tests of the soak: its limits, its network, and a short run with real cameras."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmarks.harness.errors import SettingInvalid
from benchmarks.helpers.rtsp_process import missing_requirement
from benchmarks.suites.soak import clips
from benchmarks.suites.soak.benchmark import SoakConfig, run_soak
from benchmarks.suites.soak.faulty_link import FaultyLink
from benchmarks.suites.soak.monitored_process import Usage
from benchmarks.suites.soak.summary import Injection, Minute, checks
from benchmarks.suites.soak.verdict_log import first_after, longest_gap_s, seconds_within
from tests.support.small_bundle import write_small_bundle

RTP = struct.pack(">BBHII", 0x80, 96, 7, 1000, 1) + b"payload"
PACKET = struct.pack(">cBH", b"$", 0, len(RTP)) + RTP
RTCP = struct.pack(">cBH", b"$", 1, 4) + b"rtcp"
RESPONSE = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"


def minute(*, memory: float = 400.0, threads: int = 20, files: int = 15, gap_s: float = 1.0) -> Minute:
    usage = Usage(memory_mib=memory, threads=threads, files=files)
    return Minute(end_s=60.0, usage=usage, scores_hz=8.0, gap_s=gap_s, overloaded=0.0, load=1.0)


def injection(recovery_s: float | None, affects: Any = "one") -> Injection:
    return Injection(at_s=2.0, fault="x", camera="cam1", affects=affects, states=(), recovery_s=recovery_s)


def failed(minutes: list[Minute], injections: list[Injection] | None = None, **end: Any) -> list[str]:
    """Return the names of the limits that were not kept."""
    ending = {"tracebacks": 0, "exit_code": 0, "stopped_s": 0.5, **end}
    found = checks(minutes, injections or [injection(3.0)], max_gap_s=5.0, max_recovery_s=20.0, **ending)
    return [check.name for check in found if not check.passed]


def test_limits() -> None:
    """Each limit is checked; memory of the first minutes does not count."""
    steady = [minute() for _ in range(10)]
    assert failed(steady) == []
    assert failed([minute(memory=100.0), minute(memory=200.0), *steady]) == []
    assert failed([minute(memory=400.0 + 10 * i) for i in range(10)]) == ["memory growth, MiB"]
    assert failed([minute(threads=20 + i) for i in range(10)]) == ["more threads"]
    assert failed([minute(files=20 + i) for i in range(10)]) == ["more file descriptors"]
    assert failed([*steady, minute(gap_s=5.1)]) == ["longest gap without a fault, s"]
    assert failed(steady, [injection(3.0), injection(20.1)]) == ["slowest recovery, s"]
    assert failed(steady, [injection(None)]) == ["slowest recovery, s"]
    assert failed(steady, [injection(None, "none")]) == []
    assert failed(steady, tracebacks=1, exit_code=-9, stopped_s=20.0) == [
        "tracebacks",
        "exit code",
        "time to stop, s",
    ]


def test_gaps_and_recoveries() -> None:
    """Both ends of a time span count."""
    times = [1.0, 2.0, 4.0]
    assert longest_gap_s(times, 0.5, 4.5) == 2.0
    assert longest_gap_s(times, 0.5, 9.0) == 5.0
    assert longest_gap_s(times, 5.0, 8.0) == 3.0
    assert longest_gap_s(times, 0.5, 9.0, excused=[(5.0, 7.0)]) == 2.0
    assert longest_gap_s(times, 0.5, 9.0, excused=[(3.0, 8.5)]) == 1.0
    assert seconds_within([(0.0, 1.0), (3.0, 8.5)], 0.5, 8.0) == 5.5
    assert (first_after(times, 2.5), first_after(times, 5.0)) == (1.5, None)


def test_wrong_settings() -> None:
    """One camera, or less time than one fault takes, raises an error."""
    with pytest.raises(SettingInvalid, match="--cameras"):
        SoakConfig(cameras=1)
    with pytest.raises(SettingInvalid, match="--minutes"):
        SoakConfig(minutes=0.5)


def received(data: bytes, **faults: float) -> bytes:
    """Send data through a link with the given faults; return what arrives."""
    arrived = b""
    with socket.create_server(("127.0.0.1", 0)) as camera, FaultyLink(camera.getsockname()[1]) as link:
        for name, value in faults.items():
            setattr(link, name, value)

        def send() -> None:
            connection, _ = camera.accept()
            with connection:
                # One byte at first, so that a packet arrives in parts.
                connection.sendall(data[:1])
                connection.sendall(data[1:])

        sender = threading.Thread(target=send)
        sender.start()
        with socket.create_connection(("127.0.0.1", link.port), timeout=10.0) as client:
            while part := client.recv(65536):
                arrived += part
        sender.join()
    return arrived


def test_link() -> None:
    """Responses and RTCP pass unchanged; RTP packets are lost, overwritten or get other time stamps."""
    data = RESPONSE + PACKET + RTCP + PACKET
    assert received(data) == data
    assert received(data, drop=1.0) == RESPONSE + RTCP
    shifted = received(PACKET, shift_s=-1.0)
    assert struct.unpack(">I", shifted[8:12]) == ((1000 - 90_000) % 2**32,)
    assert shifted[:8] + shifted[12:] == PACKET[:8] + PACKET[12:]
    garbled = received(PACKET, garble=1.0)
    assert (len(garbled), garbled[:16]) == (len(PACKET), PACKET[:16])
    assert garbled != PACKET


def test_short_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    """Two cameras, one fault: all limits are kept, and the record has the minute and the fault."""
    if problem := missing_requirement():
        skip_or_fail(f"no gst-rtsp-server ({problem})")
    monkeypatch.setattr(clips, "SECONDS", 1)
    monkeypatch.setattr(clips, "STILL_S", 1)
    out = tmp_path / "soak.json"
    config = SoakConfig(
        minutes=0.07,
        cameras=2,
        every_s=4.0,
        max_gap_s=6.0,
        max_recovery_s=6.0,
        model=write_small_bundle(tmp_path / "small"),
        json_out=out,
    )
    run_soak(config)
    record = json.loads(out.read_text())
    assert [fault["fault"] for fault in record["faults"]] == ["camera killed, then back"]
    (measured,) = record["minutes"]
    assert measured["usage"]["memory_mib"] > 50
    passed = {check["name"]: check["passed"] for check in record["checks"]}
    assert passed["tracebacks"]
    assert passed["exit code"]
