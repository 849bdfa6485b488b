"""Checks of the inputs: the parts of FFmpeg, cameras and screens."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import av

from runtime.commands.doctor.finding import Finding
from streams.input.devices.hwaccel import find_hwaccels
from streams.input.devices.screen import SCREENS, X_SOCKETS
from streams.input.devices.webcam import WEBCAMS, Camera, find_cameras
from streams.input.source import format_available

DECODERS = ("h264", "hevc", "mjpeg", "vp8", "vp9", "av1")
FORMATS = ("rtsp", "mpegts", "flv", "hls", "mov")


def check_decoders(available: Collection[str]) -> Finding:
    """Check FFmpeg's decoders and formats."""
    ffmpeg = getattr(av, "ffmpeg_version_info", "of unknown version")
    missing = [name for name in DECODERS if name not in available]
    missing += [name for name in FORMATS if not format_available(name)]
    text = f"FFmpeg {ffmpeg} in PyAV {av.__version__}"
    if missing:
        advice = "install PyAV's own wheel: pip install --force-reinstall av"
        return Finding(
            subject="ffmpeg", level="problem", text=f"{text} lacks {', '.join(missing)}", advice=advice
        )
    return Finding(
        subject="ffmpeg", level="ok", text=f"{text}: {', '.join(DECODERS)}", advice="nothing to do"
    )


def check_srt() -> Finding:
    """Check whether FFmpeg has libsrt."""
    try:
        # Nothing is sent: without libsrt it fails before, and with it the options are refused.
        av.open("srt://127.0.0.1:1?mode=none", timeout=0.1).close()
    except av.error.ProtocolNotFoundError:
        advice = "not needed; receive with ffmpeg instead: ffmpeg -i srt://... -f mpegts - | unmask monitor -"
        return Finding(subject="srt", level="optional", text="FFmpeg is built without libsrt", advice=advice)
    except (av.FFmpegError, OSError, ValueError):
        pass
    return Finding(
        subject="srt", level="ok", text="FFmpeg has libsrt", advice="unmask monitor srt://HOST:PORT"
    )


def check_hwaccels(found: Collection[str]) -> Finding:
    """Report the hardware that decodes on this machine."""
    if found:
        text, advice = f"decodes: {', '.join(found)}", f"unmask monitor SOURCE --hwaccel {min(found)}"
        return Finding(subject="hwaccel", level="ok", text=text, advice=advice)
    text, advice = "no hardware that FFmpeg can decode with", "not needed: the CPU decodes"
    return Finding(subject="hwaccel", level="optional", text=text, advice=advice)


def check_cameras(platform: str, cameras: Sequence[Camera]) -> Iterator[Finding]:
    """Check the input format of webcams, and each camera."""
    webcam = WEBCAMS.get(platform)
    if webcam is None or not format_available(webcam.format):
        text = f"FFmpeg cannot read webcams on {platform}"
        yield Finding(
            subject="camera", level="optional", text=text, advice="give an rtsp:// address or a file"
        )
        return
    for camera in cameras:
        names = ", ".join((camera.url, *camera.links))
        text = f"{camera.name} ({names})"
        if platform == "linux" and not os.access(camera.url, os.R_OK | os.W_OK):
            advice = "no permission: sudo usermod -aG video $USER, then log in again"
            yield Finding(subject="camera", level="optional", text=text, advice=advice)
        else:
            advice = f'unmask monitor {camera.source}, or "webcam:{camera.name}"'
            yield Finding(subject="camera", level="ok", text=text, advice=advice)
    if not cameras:
        advice = "plug one in; in a container pass it on: --device /dev/video0"
        yield Finding(subject="camera", level="optional", text="none found", advice=advice)


def check_screens(
    platform: str, environment: Mapping[str, str], sockets: Path = X_SOCKETS
) -> Iterator[Finding]:
    """Check each screen; on Linux the X servers of this machine."""
    name = SCREENS.get(platform)
    if name is None or not format_available(name):
        text = f"FFmpeg cannot read screens on {platform}"
        yield Finding(subject="screen", level="optional", text=text, advice="share a window with `browser`")
        return
    if platform != "linux":
        yield Finding(subject="screen", level="ok", text="can be read", advice="unmask monitor screen")
        return
    if environment.get("WAYLAND_DISPLAY") or environment.get("XDG_SESSION_TYPE") == "wayland":
        text = "a Wayland desktop shows its windows to no other program"
        yield Finding(subject="screen", level="optional", text=text, advice="unmask monitor browser")
    numbers = sorted(path.name.removeprefix("X") for path in sockets.glob("X*"))
    for display in dict.fromkeys([environment.get("DISPLAY", ""), *(f":{number}" for number in numbers)]):
        if display:
            yield _check_display(display)
    if not numbers and not environment.get("DISPLAY"):
        advice = "start it in a desktop session, or set DISPLAY"
        yield Finding(subject="screen", level="optional", text="no X server found", advice=advice)


def _check_display(display: str) -> Finding:
    try:
        with av.open(display, format="x11grab", options={"framerate": "100"}, timeout=2.0) as container:
            video = container.streams.video[0]
            text = f"{display}, {video.width}x{video.height}"
    except (av.FFmpegError, OSError):
        advice = "set XAUTHORITY as in its session, or allow this user with xhost"
        return Finding(
            subject="screen",
            level="optional",
            text=f"{display} cannot be read: no server or no permission",
            advice=advice,
        )
    advice = f"unmask monitor screen:{display.removeprefix(':')}"
    return Finding(subject="screen", level="ok", text=text, advice=advice)


def input_findings() -> Iterator[Finding]:
    """Run all checks of this file."""
    yield check_decoders(av.codecs_available)
    yield check_srt()
    yield check_hwaccels(find_hwaccels())
    yield from check_cameras(sys.platform, find_cameras())
    yield from check_screens(sys.platform, os.environ)
