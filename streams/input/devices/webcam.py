"""Webcams: the FFmpeg input of each operating system, the cameras of this machine, and their names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from streams.errors import SourceMissing

__all__ = ["WEBCAMS", "Camera", "Webcam", "camera_url", "find_cameras"]


@dataclass(frozen=True, kw_only=True)
class Webcam:
    """FFmpeg input of webcams on one operating system."""

    format: str
    url: str
    """Address, with `{index}` for the number of the camera."""

    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)


# A small frame size at full frame rate: many webcams halve their rate at larger sizes, and the input of the
# face detector has at most 640 pixels. v4l2 falls back to the nearest mode of the camera; avfoundation and
# dshow fail for a mode that the camera does not offer, so as few options as possible are set.
WEBCAMS: Mapping[str, Webcam] = MappingProxyType(
    {
        "linux": Webcam(
            format="v4l2",
            url="/dev/video{index}",
            options=MappingProxyType({"framerate": "30", "video_size": "640x480"}),
        ),
        "darwin": Webcam(
            format="avfoundation", url="{index}:none", options=MappingProxyType({"framerate": "30"})
        ),
        # DirectShow addresses cameras by name; `camera_url` looks it up when the camera is opened.
        "win32": Webcam(format="dshow", url="{index}"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Camera of this machine.

    Args:
        source: Text of its source, such as `webcam:0`.
        name: Name that the device states.
        url: Address that FFmpeg opens.
        links: Other paths of the device that stay the same when cameras are plugged in again.
    """

    source: str
    name: str
    url: str
    links: tuple[str, ...] = ()


def find_cameras(platform: str = sys.platform, *, root: Path = Path("/")) -> list[Camera]:
    """Return the cameras of this machine in the order of their numbers.

    Args:
        platform: Operating system as in `sys.platform`.
        root: Folder with the kernel's `sys` and `dev`, on Linux.

    Source:
        Linux Documentation/userspace-api/media/v4l/open.rst; a camera's further nodes, such as the one of its
        metadata, have an `index` above 0.
    """
    if platform == "linux":
        return _linux_cameras(root)
    if platform not in WEBCAMS:
        return []
    import av.device  # missing in some supported versions of PyAV

    format_name = WEBCAMS[platform].format
    names = [d.name for d in av.device.enumerate_input_devices(format_name) if "video" in d.media_types]
    prefix, suffix = ("video=", "") if platform == "win32" else ("", ":none")
    return [
        Camera(source=f"webcam:{number}", name=name, url=f"{prefix}{name}{suffix}")
        for number, name in enumerate(names)
    ]


def camera_url(
    wanted: str,
    shown: str,
    cameras: Callable[[], Sequence[Camera]] = find_cameras,
    *,
    by_number: bool = False,
) -> str:
    """Return the address that FFmpeg opens for a camera; called when it is opened.

    Args:
        wanted: Name of the camera, upper and lower case alike; or its number.
        shown: Text for the error.
        cameras: Returns the cameras of this machine.
        by_number: Whether `wanted` is a number.

    Raises:
        SourceMissing: There is no such camera.
    """
    found = list(cameras())
    if by_number:
        if int(wanted) < len(found):
            return found[int(wanted)].url
        raise SourceMissing(shown, "no such camera", f"cameras found: {len(found)}")
    for camera in found:
        if camera.name.casefold() == wanted.casefold():
            return camera.url
    names = ", ".join(camera.name for camera in found) or "none"
    raise SourceMissing(shown, "no such camera", f"check that it is plugged in; cameras found: {names}")


def _linux_cameras(root: Path) -> list[Camera]:
    nodes = []
    for folder in (root / "sys/class/video4linux").glob("video*"):
        number = folder.name.removeprefix("video")
        if number.isdigit() and _text(folder / "index") in ("0", ""):
            nodes.append((int(number), _text(folder / "name")))
    return [
        Camera(
            source=f"webcam:{number}",
            name=name or f"video{number}",
            url=f"/dev/video{number}",
            links=tuple(_links(root, number)),
        )
        for number, name in sorted(nodes)
    ]


def _links(root: Path, number: int) -> list[str]:
    links = sorted((root / "dev/v4l").glob("by-*/*"))
    return [f"/{link.relative_to(root)}" for link in links if link.resolve().name == f"video{number}"]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
