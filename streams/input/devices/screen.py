"""Screens: parsing of `screen[:DISPLAY][+X,Y,WIDTHxHEIGHT]`, and the FFmpeg input of each system."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from streams.errors import SourceInvalid, SourceMissing

__all__ = ["FORM", "SCREENS", "X_SOCKETS", "Grab", "Region", "is_screen", "parse_screen"]

FORM = "screen, screen:DISPLAY or screen:DISPLAY+X,Y,WIDTHxHEIGHT"

SCREENS: Mapping[str, str] = MappingProxyType(
    {"linux": "x11grab", "darwin": "avfoundation", "win32": "gdigrab"}
)
"""FFmpeg's input format by operating system."""

X_SOCKETS = Path("/tmp/.X11-unix")
"""Folder of the sockets of local X servers, `X` and the number of the display."""

# Twice the sample rate of the bundled model: copying a large screen more often costs CPU time.
_FPS = "16"

_SCREEN = re.compile(
    r"screen(?::(?P<display>[^+\s]+))?"
    r"(?P<region>\+(?P<x>\d{1,5}),(?P<y>\d{1,5}),(?P<width>\d{1,5})x(?P<height>\d{1,5}))?"
)
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Region:
    """Rectangle of a screen in pixels."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"+{self.x},{self.y},{self.width}x{self.height}"


@dataclass(frozen=True, kw_only=True)
class Grab:
    """FFmpeg input of one screen.

    Args:
        format: FFmpeg's input format.
        url: Address that FFmpeg opens.
        shown: Text of the source.
        options: FFmpeg options.
    """

    format: str
    url: str
    shown: str
    options: Mapping[str, str] = field(hash=False)


def is_screen(text: str) -> bool:
    """Return whether a text is meant as a screen, well-formed or not."""
    return re.match(r"screen([:+]|$)", text) is not None


def parse_screen(
    text: str, platform: str = sys.platform, environment: Mapping[str, str] = os.environ
) -> Grab:
    """Parse a screen.

    Args:
        text: `screen`, `screen:DISPLAY` or either with `+X,Y,WIDTHxHEIGHT`. On Linux DISPLAY is an X display,
            `:0` or `0`; on macOS the number of the screen; Windows has one desktop.
        platform: Operating system as in `sys.platform`.
        environment: Variables of the process; `DISPLAY` is the default on Linux.

    Raises:
        SourceInvalid: The text is malformed, or this system has no such choice.
        SourceMissing: There is no screen.
    """
    match = _SCREEN.fullmatch(text)
    if match is None:
        raise SourceInvalid(text, "not a screen", f"write {FORM}")
    region = None
    if match["region"]:
        region = Region(*(int(match[part]) for part in ("x", "y", "width", "height")))
        if not (region.width and region.height):
            raise SourceInvalid(text, "the region is empty", f"write {FORM}")
    display = match["display"] or ""
    if platform == "linux":
        return _x11(text, display, region, environment)
    if platform == "darwin":
        return _avfoundation(text, display, region)
    if platform == "win32":
        return _gdi(text, display, region)
    raise SourceInvalid(text, f"screens are not supported on {platform}", "give an rtsp:// address or a file")


def _x11(text: str, display: str, region: Region | None, environment: Mapping[str, str]) -> Grab:
    if _NUMBER.fullmatch(display):
        display = f":{display}"
    server = display or environment.get("DISPLAY", "")
    if not server:
        if environment.get("WAYLAND_DISPLAY"):
            raise SourceMissing(
                text, "a Wayland desktop cannot be read as a screen", "share a window with `browser` instead"
            )
        raise SourceMissing(text, "DISPLAY is not set", "name the display, such as screen:0")
    # The pointer would move over faces.
    options = {"framerate": _FPS, "draw_mouse": "0"}
    url = server
    if region:
        options["video_size"] = f"{region.width}x{region.height}"
        url = f"{server}+{region.x},{region.y}"
    shown = f"screen{':' if display else ''}{display.removeprefix(':')}{region or ''}"
    return Grab(format="x11grab", url=url, shown=shown, options=MappingProxyType(options))


def _avfoundation(text: str, display: str, region: Region | None) -> Grab:
    if region:
        raise SourceInvalid(text, "a region cannot be chosen on macOS", "leave it out")
    if not (display or "0").isdigit():
        raise SourceInvalid(text, "not the number of a screen", "write screen:0 or screen:1")
    url = f"Capture screen {int(display or 0)}:none"
    options = {"framerate": _FPS, "capture_cursor": "0"}
    return Grab(format="avfoundation", url=url, shown=text, options=MappingProxyType(options))


def _gdi(text: str, display: str, region: Region | None) -> Grab:
    if display:
        raise SourceInvalid(text, "Windows has one desktop", "write screen or screen+X,Y,WIDTHxHEIGHT")
    options = {"framerate": _FPS, "draw_mouse": "0"}
    if region:
        options |= {"offset_x": str(region.x), "offset_y": str(region.y)}
        options["video_size"] = f"{region.width}x{region.height}"
    return Grab(format="gdigrab", url="desktop", shown=text, options=MappingProxyType(options))
