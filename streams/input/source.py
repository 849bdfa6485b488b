"""Where pictures come from: an RTSP camera, a webcam, a file, any URL FFmpeg opens, or the built-in demo.

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

__all__ = ["WEBCAMS", "Kind", "Source", "Webcam", "device_url", "format_available", "parse_source", "redact"]

Kind = Literal["rtsp", "webcam", "file", "url", "demo"]


def _no_options() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place frames come from, named for people without its credentials and for FFmpeg with them."""

    spec: str
    """The source as the user gave it, credentials removed: for messages."""

    name: str
    """A short name to show; several sources may share it."""

    url: str = field(repr=False)
    """What FFmpeg opens. It may hold a password: never show it."""

    format: str | None = None
    """FFmpeg's input format where it has to be named; None lets FFmpeg find out."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False)
    """FFmpeg options for opening it."""

    live: bool
    """Whether pictures arrive at their own pace and the newest matters most; otherwise the source waits."""

    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Webcam:
    """How FFmpeg reads a camera on one operating system."""

    format: str
    url: str
    """The address, with `{index}` for the camera's number."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False)


# A modest picture at full rate: many webcams halve their rate when asked for more, and the face detector
# works at 640 pixels at most. Where the camera has no such mode, v4l2 takes its nearest one; the other two
# refuse what the camera does not offer, so they are asked for little.
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
        # DirectShow knows cameras by name; `device_url` looks the name up when the camera is opened.
        "win32": Webcam(format="dshow", url="{index}"),
    }
)

_RTSP_SCHEMES = frozenset({"rtsp", "rtsps"})
_LIVE_SCHEMES = frozenset({"rtmp", "rtmps", "rtmpt", "rtmpts", "rtp", "srt", "tcp", "udp"})
_WEB_SCHEMES = frozenset({"http", "https", "ftp"})

# What a web server sends under these names has an end, or is a playlist that FFmpeg fetches piece by piece;
# anything else is taken for a camera that pushes pictures.
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
    """Read what a user typed as a source.

    Args:
        text: `rtsp://...`, `rtsps://...`, `webcam`, `webcam:N`, the path of a file, a URL, or `demo`.
        rtsp_transport: How RTP packets travel; TCP loses none, UDP needs the network's consent.
        live: Whether a URL is live; None decides by its scheme and suffix. Other kinds know it themselves.
        platform: The operating system in the words of `sys.platform`; it decides how a webcam is read.

    Returns:
        The source, not yet opened.

    Raises:
        SourceInvalid: The text names no source.
        SourceMissing: It names a file that does not exist.
        SourceNotVideo: It names a directory.
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
        _ = parts.port  # read for its check
    except ValueError:
        # Not the original message: it may quote a piece of the password.
        reason, advice = "not a well-formed address", "write special characters of a password as %XX"
        raise SourceInvalid(spec, reason, advice) from None
    if scheme == "file":
        return _file(text, Path(url2pathname(parts.path)))
    if scheme not in _RTSP_SCHEMES | _LIVE_SCHEMES | _WEB_SCHEMES:
        raise SourceInvalid(spec, f"unknown scheme {scheme}://")
    if not parts.hostname and scheme not in ("udp", "tcp", "srt"):  # those may listen on every address
        raise SourceInvalid(spec, "the address has no host")
    if scheme in _RTSP_SCHEMES:
        # Audio is not even asked for: its packets would only keep a camera without pictures looking alive.
        # Nor does FFmpeg have to watch twenty pictures for their rate before it gives out the first: the
        # camera's own word is enough to start with, and the sampler measures.
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
    # The path may hold what `redact` takes for credentials; a host is always safe to show.
    safe = last and "@" not in parts.path
    return (last if safe else parts.hostname) or parts.scheme


def _file(text: str, path: Path) -> Source:
    spec = redact(text)
    try:
        missing, directory = not path.exists(), path.is_dir()
    except (OSError, ValueError):  # a name too long, or one with a NUL in it
        raise SourceInvalid(spec, "not a possible file name") from None
    if missing and _LOOKS_LIKE_SCHEME.match(text) and not text.lower().startswith("file:"):
        raise SourceInvalid(spec, "neither a file nor a known kind of source")
    if missing:
        raise SourceMissing(spec, "no such file", "check the path")
    if directory:
        raise SourceNotVideo(spec, "is a directory", "give a video file")
    # With the prefix, FFmpeg takes a colon in a file's name for what it is.
    return Source(spec=spec, name=path.name, url=f"file:{path}", live=False, kind="file")


def format_available(name: str, available: Sequence[str] | None = None) -> bool:
    """Tell whether this FFmpeg can read a format.

    Args:
        name: FFmpeg's short name, such as `v4l2`.
        available: The formats to look among; PyAV's by default. One entry can hold several names.

    Returns:
        Whether any entry holds the name.
    """
    entries = av.formats_available if available is None else available
    return any(name in entry.split(",") for entry in entries)


def _dshow_cameras() -> list[str]:
    import av.device  # not in every PyAV that is new enough for the rest

    devices = av.device.enumerate_input_devices("dshow")
    return [device.name for device in devices if "video" in device.media_types]


def device_url(source: Source, list_cameras: Callable[[], Sequence[str]] = _dshow_cameras) -> str:
    """Find what FFmpeg opens for a source at this moment.

    Args:
        source: Any source; only a DirectShow camera needs looking up, by its number.
        list_cameras: Gives the names of the DirectShow cameras.

    Returns:
        The address to open; it may hold a password.

    Raises:
        SourceMissing: There is no camera of that number.
    """
    if source.format != "dshow":
        return source.url
    cameras, index = list_cameras(), int(source.url)
    if index >= len(cameras):
        raise SourceMissing(source.spec, "no such camera", f"cameras found: {len(cameras)}")
    return f"video={cameras[index]}"
