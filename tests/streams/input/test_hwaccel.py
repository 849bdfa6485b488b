"""Tests of decoding by hardware, on machines that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.codec import Codec

from streams.input.capture import ffmpeg
from streams.input.devices import hwaccel
from streams.input.devices.hwaccel import check_hwaccel, find_hwaccels, hwaccel_problem
from streams.input.events import Connected, Connecting, Ended, NotAccelerated
from streams.input.source import parse_source
from tests.support.reading import frames_of, reading

MakeVideo = Callable[..., Path]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Try the devices again in each test and after it."""
    hwaccel_problem.cache_clear()
    yield
    hwaccel_problem.cache_clear()


def test_unknown_hardware_is_refused() -> None:
    """The error lists what this FFmpeg knows."""
    with pytest.raises(ValueError, match=r"must be one of .*cuda.*, not 'gpu'"):
        check_hwaccel("gpu")
    with pytest.raises(ValueError, match="must be one of"):
        parse_source("demo", hwaccel="gpu")
    assert parse_source("rtsp://host/cam", hwaccel="cuda").hwaccel == "cuda"


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ({}, None),
        ({"h264": NotImplementedError()}, None),
        (dict.fromkeys(("h264", "hevc", "mjpeg"), NotImplementedError()), "FFmpeg has no decoder for it"),
        (
            dict.fromkeys(("h264", "hevc", "mjpeg"), PermissionError(1, "Operation not permitted")),
            "this machine has no such device, or not its driver",
        ),
    ],
)
def test_a_device_is_tried(
    results: dict[str, Exception], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that decodes one of the usual formats is usable; otherwise the reason is kept."""

    class Device:
        def __init__(self, name: str, *, allow_software_fallback: bool) -> None:
            assert (name, allow_software_fallback) == ("cuda", False)

        def create(self, codec: Codec) -> Device:
            if codec.name in results:
                raise results[codec.name]
            return self

    monkeypatch.setattr(hwaccel, "HWAccel", Device)
    monkeypatch.setattr(hwaccel, "hwdevices_available", lambda: ["cuda"])
    assert hwaccel_problem("cuda") == problem
    assert find_hwaccels() == ([] if problem else ["cuda"])


@pytest.mark.parametrize(
    ("problem", "reason"),
    [("no device", "no device"), (None, "it does not decode h264")],
)
def test_the_cpu_decodes_what_the_hardware_cannot(
    problem: str | None, reason: str, tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the device is missing or does not know the format, frames are the same, and it is reported."""
    path = make_video(tmp_path / "clip.mp4", frames=50)
    monkeypatch.setattr(ffmpeg, "hwaccel_problem", lambda device: problem)
    taken: list[list[Any]] = []
    # FFmpeg's own decoder of H.264 does not use QSV.
    for device in (None, "qsv"):
        with reading(path, hwaccel=device) as (reader, events):
            taken.append([frame.image.to_ndarray() for frame in frames_of(reader)])
    assert len(taken[0]) == len(taken[1]) > 10
    assert all(np.array_equal(own, other) for own, other in zip(*taken, strict=True))
    connected = Connected(320, 240, 25.0)
    assert events.received == [Connecting(1), connected, NotAccelerated("qsv", reason), Ended()]
