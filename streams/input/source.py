"""Sources of frames: an RTSP camera, a webcam, a file, any URL that FFmpeg opens, or the built-in demo.

source = parse_source("rtsp://user:secret@10.0.0.7/cam")
source.name   # "10.0.0.7"
source.spec   # "rtsp://10.0.0.7"
parse_source("door=rtsp://user:secret@10.0.0.7/cam").spec   # "door (rtsp://10.0.0.7)"
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceNotVideo, SourceUnauthorized
from streams.input.address import Address, file_address, network_address, shown_text
from streams.input.files import VIDEO_SUFFIXES
from streams.text import printable

__all__ = [
    "WEBCAMS",
    "Kind",
    "Source",
    "Webcam",
    "device_url",
    "file_source",
    "format_available",
    "parse_source",
]

Kind = Literal["rtsp", "webcam", "file", "url", "demo"]

MAX_NAME = 64


def _no_options() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of frames. Only `address` may contain a password; its text does not show it."""

    address: Address
    """Address that FFmpeg opens."""

    name: str = ""
    """Display name: printable, at most `MAX_NAME` characters, not unique; by default that of the address."""

    format: str | None = None
    """FFmpeg's input format; None to let FFmpeg detect it."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False, repr=False)
    """FFmpeg options for opening the source."""

    live: bool | None
    """Whether frames arrive in real time and newer ones replace older ones; a finite source waits instead.
    None for a web address, as it is known from the container only; see `streams.input.capture.delivery`."""

    kind: Kind

    def __post_init__(self) -> None:
        # Made printable here once, because names appear in logs, messages, metric labels and pages.
        for name in (self.name, self.address.name, self.kind):
            if shown := printable(name, MAX_NAME):
                object.__setattr__(self, "name", shown)
                return

    @property
    def is_named_as_file(self) -> bool:
        """Return whether the path of a web address has a video suffix; it may be live all the same."""
        if self.kind != "url" or self.live is not None:
            return False
        return PurePosixPath(urlsplit(self.address.reveal()).path).suffix.lower() in VIDEO_SUFFIXES

    @property
    def spec(self) -> str:
        """Return the text for errors and logs: the shown part of the address, or `NAME (ADDRESS)`."""
        shown = str(self.address)
        derived = printable(self.address.name, MAX_NAME)
        return shown if self.name in (derived, shown) else f"{self.name} ({shown})"


@dataclass(frozen=True, kw_only=True)
class Webcam:
    """FFmpeg input of webcams on one operating system."""

    format: str
    url: str
    """Address, with `{index}` for the number of the camera."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False)


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
        # DirectShow addresses cameras by name; `device_url` looks it up when the camera is opened.
        "win32": Webcam(format="dshow", url="{index}"),
    }
)

_RTSP_SCHEMES = frozenset({"rtsp", "rtsps"})
_LIVE_SCHEMES = frozenset({"rtmp", "rtmps", "rtmpt", "rtmpts", "rtp", "srt", "tcp", "udp"})
_WEB_SCHEMES = frozenset({"http", "https", "ftp"})

# A session description (SDP) names the ports on which RTP arrives. FFmpeg opens network addresses named in a
# file only for the protocols in this list.
_SESSION_PROTOCOLS = "file,crypto,data,rtp,srtp,udp,tcp"

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_WEBCAM = re.compile(r"webcam(?::(?P<index>\d{1,3}))?")
_VIDEO_DEVICE = re.compile(r"/dev/video(?P<index>\d{1,3})")
# Links to cameras that udev creates, by model and serial number or by USB port.
_STABLE_DEVICE = re.compile(r"/dev/v4l/by-[a-z]+/(?P<name>[^/]+)")
_LOOKS_LIKE_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!\\)")
_NAMED = re.compile(r"(?P<name>[^=/\\:?&@#]+)=(?P<source>.+)", re.DOTALL)


def parse_source(
    text: str,
    *,
    name: str | None = None,
    rtsp_transport: Literal["tcp", "udp"] = "tcp",
    live: bool | None = None,
    platform: str = sys.platform,
) -> Source:
    """Parse a source as a user types it.

    Args:
        text: `rtsp://...`, `rtsps://...`, `webcam`, `webcam:N`, the path of a file, a URL, or `demo`; any of
            them after `NAME=`.
        name: Display name; None for `NAME`, else the host or file name of the address.
        rtsp_transport: Transport of the RTP packets. TCP loses none; UDP must be allowed by the network.
        live: Whether a URL is live; None to decide by its scheme, or by what a web server sends. Ignored for
            other kinds.
        platform: Operating system as in `sys.platform`; selects the FFmpeg input of webcams.

    Returns:
        The source, not yet opened.

    Raises:
        SourceInvalid: The text does not name a source.
        SourceMissing: The file does not exist.
        SourceNotVideo: The path is a directory.
    """
    if rtsp_transport not in ("tcp", "udp"):
        raise ValueError(f"rtsp_transport must be tcp or udp, not {rtsp_transport!r}")
    text = text.strip()
    named = None if _exists(text) else _NAMED.fullmatch(text)
    if named:
        text, name = named["source"].strip(), name or named["name"]
    try:
        source = _parse(text, rtsp_transport, live, platform)
        return source if name is None else replace(source, name=name)
    except SourceError as error:
        failure = error
    if name:
        shown = f"{printable(name, MAX_NAME)} ({failure.source})"
        raise type(failure)(shown, failure.reason, failure.advice)
    raise failure


def file_source(path: Path) -> Source:
    """Return the source of a video file, whatever its name.

    Raises:
        SourceInvalid: The path is too long or contains NUL.
        SourceMissing: The file does not exist.
        SourceNotVideo: The path is a directory.
        SourceUnauthorized: The path is a directory that this user may not list.
    """
    return _file(str(path), path)


def _parse(text: str, rtsp_transport: str, live: bool | None, platform: str) -> Source:
    if not text:
        raise SourceInvalid("source", "nothing was given")
    if text == "demo":
        return Source(address=Address(text, shown=text, name=text), live=True, kind="demo")
    if webcam := _WEBCAM.fullmatch(text) or (platform == "linux" and _VIDEO_DEVICE.fullmatch(text)):
        return _webcam(f"webcam:{int(webcam['index'] or 0)}", int(webcam["index"] or 0), platform)
    if device := platform == "linux" and _STABLE_DEVICE.fullmatch(text):
        camera, address = WEBCAMS["linux"], Address(text, shown=text, name=device["name"])
        return Source(address=address, format=camera.format, options=camera.options, live=True, kind="webcam")
    if _SCHEME.match(text):
        return _address(text, rtsp_transport, live)
    path = Path(text)
    if path.suffix.lower() == ".sdp" and path.is_file():
        options = MappingProxyType({"protocol_whitelist": _SESSION_PROTOCOLS})
        return Source(address=file_address(path), format="sdp", options=options, live=True, kind="url")
    return _file(text, path)


def _webcam(name: str, index: int, platform: str) -> Source:
    if platform not in WEBCAMS:
        raise SourceInvalid(
            name, f"webcams are not supported on {platform}", "give an rtsp:// address or a file"
        )
    webcam = WEBCAMS[platform]
    return Source(
        address=Address(webcam.url.format(index=index), shown=name, name=name),
        format=webcam.format,
        options=webcam.options,
        live=True,
        kind="webcam",
    )


def _address(text: str, rtsp_transport: str, live: bool | None) -> Source:
    address = network_address(text)
    scheme, parts = address.scheme, urlsplit(text)
    if scheme == "file":
        return _file(text, Path(url2pathname(parts.path)))
    if scheme not in _RTSP_SCHEMES | _LIVE_SCHEMES | _WEB_SCHEMES:
        raise SourceInvalid(address.shown, f"unknown scheme {scheme}://")
    # udp, tcp and srt may listen on every address.
    if not parts.hostname and scheme not in ("udp", "tcp", "srt"):
        raise SourceInvalid(f"{scheme}://…", "the address has no host")
    if scheme in _RTSP_SCHEMES:
        # Audio is not requested: its packets would hide that a camera sends no video. The frame rate is not
        # probed, because that delays the first frame by about 20 frames. The rate that the camera states is
        # used at first, and the sampler measures it.
        options = {"rtsp_transport": rtsp_transport, "allowed_media_types": "video", "fpsprobesize": "0"}
        return Source(
            address=address, format="rtsp", options=MappingProxyType(options), live=True, kind="rtsp"
        )
    if live is None and scheme in _LIVE_SCHEMES:
        live = True
    return Source(address=address, live=live, kind="url")


def _file(text: str, path: Path) -> Source:
    try:
        missing, directory = not path.exists(), path.is_dir()
    except (OSError, ValueError):  # the name is too long or contains NUL
        missing, directory, possible = True, False, False
    else:
        possible = True
    if not possible:
        raise SourceInvalid(shown_text(text), "not a possible file name")
    if missing and _LOOKS_LIKE_SCHEME.match(text) and not text.lower().startswith("file:"):
        raise SourceInvalid(shown_text(text), "neither a file nor a known kind of source")
    if missing:
        raise SourceMissing(shown_text(str(path)), "no such file", "check the path")
    if directory and not os.access(path, os.R_OK | os.X_OK):
        raise SourceUnauthorized(str(path), "no permission to list this directory", "let this user read it")
    if directory:
        raise SourceNotVideo(str(path), "is a directory", "give a video file")
    return Source(address=file_address(path), live=False, kind="file")


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def format_available(name: str, available: Sequence[str] | None = None) -> bool:
    """Return whether this FFmpeg can read a format.

    Args:
        name: FFmpeg's short name, such as `v4l2`.
        available: The available formats, PyAV's by default. One entry can contain several names.
    """
    entries = av.formats_available if available is None else available
    return any(name in entry.split(",") for entry in entries)


def _dshow_cameras() -> list[str]:
    import av.device  # missing in some supported versions of PyAV

    devices = av.device.enumerate_input_devices("dshow")
    return [device.name for device in devices if "video" in device.media_types]


def device_url(source: Source, list_cameras: Callable[[], Sequence[str]] = _dshow_cameras) -> str:
    """Return the address that FFmpeg opens for a source.

    Args:
        source: Any source; only a DirectShow camera has to be looked up, by its number.
        list_cameras: Returns the names of the DirectShow cameras.

    Returns:
        The address; it may contain a password.

    Raises:
        SourceMissing: There is no camera with that number.
    """
    if source.format != "dshow":
        return source.address.reveal()
    cameras, index = list_cameras(), int(source.address.reveal())
    if index >= len(cameras):
        raise SourceMissing(source.spec, "no such camera", f"cameras found: {len(cameras)}")
    return f"video={cameras[index]}"
