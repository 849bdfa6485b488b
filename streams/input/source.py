"""Sources of frames: an RTSP camera, a webcam, a file, any URL that FFmpeg opens, or the built-in demo.

Only `Source.url` contains credentials; `name` and `spec` are safe to show.

    source = parse_source("rtsp://user:secret@10.0.0.7/cam")
    source.name   # "cam"
    source.spec   # "rtsp://10.0.0.7/cam"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

import av

from streams.errors import SourceInvalid, SourceMissing, SourceNotVideo, redact
from streams.input.files import VIDEO_SUFFIXES

__all__ = ["WEBCAMS", "Kind", "Source", "Webcam", "device_url", "format_available", "parse_source"]

Kind = Literal["rtsp", "webcam", "file", "url", "demo"]


def _no_options() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of frames; `spec` and `name` are safe to show, `url` may contain credentials."""

    spec: str
    """The source as the user gave it, without credentials; used in messages."""

    name: str
    """Short name to show; not unique."""

    url: str = field(repr=False)
    """Address that FFmpeg opens. It may contain a password and must never be shown."""

    format: str | None = None
    """FFmpeg's input format; None to let FFmpeg detect it."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False)
    """FFmpeg options for opening the source."""

    live: bool
    """Whether frames arrive in real time and newer ones replace older ones; a finite source waits instead."""

    kind: Kind


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

# A web resource with one of these suffixes has an end, or is a playlist that FFmpeg fetches in parts. Any
# other resource is taken for a camera that pushes frames.
_FINITE_SUFFIXES = VIDEO_SUFFIXES | {".gif", ".m3u8", ".mpd"}

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_WEBCAM = re.compile(r"webcam(?::(?P<index>\d{1,3}))?")
_VIDEO_DEVICE = re.compile(r"/dev/video(?P<index>\d{1,3})")
_LOOKS_LIKE_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!\\)")


def parse_source(
    text: str,
    *,
    rtsp_transport: Literal["tcp", "udp"] = "tcp",
    live: bool | None = None,
    platform: str = sys.platform,
) -> Source:
    """Parse a source as a user types it.

    Args:
        text: `rtsp://...`, `rtsps://...`, `webcam`, `webcam:N`, the path of a file, a URL, or `demo`.
        rtsp_transport: Transport of the RTP packets; TCP loses none, UDP must be allowed by the network.
        live: Whether a URL is live; None to decide by its scheme and suffix. Ignored for other kinds.
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
    if not text:
        raise SourceInvalid("source", "nothing was given")
    if text == "demo":
        return Source(spec=text, name=text, url=text, live=True, kind="demo")
    if webcam := _WEBCAM.fullmatch(text) or (platform == "linux" and _VIDEO_DEVICE.fullmatch(text)):
        return _webcam(text, int(webcam["index"] or 0), platform)
    if scheme := _SCHEME.match(text):
        return _address(text, scheme["scheme"].lower(), rtsp_transport, live)
    return _file(text, Path(text))


def _webcam(text: str, index: int, platform: str) -> Source:
    if platform not in WEBCAMS:
        raise SourceInvalid(
            text, f"webcams are not supported on {platform}", "give an rtsp:// address or a file"
        )
    webcam = WEBCAMS[platform]
    return Source(
        spec=text,
        name=f"webcam-{index}" if index else "webcam",
        url=webcam.url.format(index=index),
        format=webcam.format,
        options=webcam.options,
        live=True,
        kind="webcam",
    )


def _address(text: str, scheme: str, rtsp_transport: str, live: bool | None) -> Source:
    spec = redact(text)
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError if invalid
    except ValueError:
        # The original message is not used: it may quote a part of the password.
        reason, advice = "not a well-formed address", "write special characters of a password as %XX"
        raise SourceInvalid(spec, reason, advice) from None
    if scheme == "file":
        return _file(text, Path(url2pathname(parts.path)))
    if scheme not in _RTSP_SCHEMES | _LIVE_SCHEMES | _WEB_SCHEMES:
        raise SourceInvalid(spec, f"unknown scheme {scheme}://")
    # udp, tcp and srt may listen on every address.
    if not parts.hostname and scheme not in ("udp", "tcp", "srt"):
        raise SourceInvalid(spec, "the address has no host")
    if scheme in _RTSP_SCHEMES:
        # Audio is not requested: its packets would hide that a camera sends no video. The frame rate is not
        # probed, because that delays the first frame by about 20 frames. The rate that the camera states is
        # good enough to start with, and the sampler measures it.
        options = {"rtsp_transport": rtsp_transport, "allowed_media_types": "video", "fpsprobesize": "0"}
        return Source(
            spec=spec,
            name=_address_name(parts),
            url=text,
            format="rtsp",
            options=MappingProxyType(options),
            live=True,
            kind="rtsp",
        )
    if live is None:
        live = scheme in _LIVE_SCHEMES or PurePosixPath(parts.path).suffix.lower() not in _FINITE_SUFFIXES
    return Source(spec=spec, name=_address_name(parts), url=text, live=live, kind="url")


def _address_name(parts: SplitResult) -> str:
    last = PurePosixPath(parts.path).name
    # A path with "@" may contain credentials; a host is always safe to show.
    safe = last and "@" not in parts.path
    return (last if safe else parts.hostname) or parts.scheme


def _file(text: str, path: Path) -> Source:
    spec = redact(text)
    try:
        missing, directory = not path.exists(), path.is_dir()
    except (OSError, ValueError):  # the name is too long or contains NUL
        raise SourceInvalid(spec, "not a possible file name") from None
    if missing and _LOOKS_LIKE_SCHEME.match(text) and not text.lower().startswith("file:"):
        raise SourceInvalid(spec, "neither a file nor a known kind of source")
    if missing:
        raise SourceMissing(spec, "no such file", "check the path")
    if directory:
        raise SourceNotVideo(spec, "is a directory", "give a video file")
    # The prefix keeps FFmpeg from parsing a colon in the file name as a protocol.
    return Source(spec=spec, name=path.name, url=f"file:{path}", live=False, kind="file")


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
        return source.url
    cameras, index = list_cameras(), int(source.url)
    if index >= len(cameras):
        raise SourceMissing(source.spec, "no such camera", f"cameras found: {len(cameras)}")
    return f"video={cameras[index]}"
