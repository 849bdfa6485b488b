"""Sources of frames: a camera, a webcam, a screen, a file, standard input, a URL, a browser, or the demo.

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
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import url2pathname

import av

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceNotVideo, SourceUnauthorized
from streams.input.address import Address, file_address, network_address, shown_text
from streams.input.devices.hwaccel import check_hwaccel
from streams.input.devices.screen import is_screen, parse_screen
from streams.input.devices.webcam import WEBCAMS, Camera, camera_url, find_cameras
from streams.input.files import VIDEO_SUFFIXES
from streams.input.pushed.inlet import FrameInlet
from streams.text import printable

__all__ = [
    "LISTEN_S",
    "MAX_NAME",
    "Kind",
    "Source",
    "device_url",
    "file_source",
    "format_available",
    "parse_source",
    "split_name",
]

Kind = Literal["rtsp", "webcam", "screen", "file", "pipe", "url", "push", "demo"]

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

    is_name_given: bool = field(default=False, compare=False)
    """Whether the user has given the name; one from the address yields to it."""

    format: str | None = None
    """FFmpeg's input format; None to let FFmpeg detect it."""

    options: Mapping[str, str] = field(default_factory=_no_options, hash=False, repr=False)
    """FFmpeg options for opening the source."""

    live: bool | None
    """Whether frames arrive in real time and newer ones replace older ones; a finite source waits instead.
    None for a web address, as it is known from the container only; see `streams.input.capture.delivery`."""

    kind: Kind

    inlet: FrameInlet | None = field(default=None, compare=False, repr=False)
    """Entrance of the frames of a source to which senders push by WebRTC; None for any other source."""

    listens: bool = False
    """Whether the source waits for a sender that connects to it; it listens again after the sender left."""

    hwaccel: str | None = None
    """Hardware to decode with, by FFmpeg's name; what it cannot decode, the CPU does. None for the CPU."""

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
    def path(self) -> Path | None:
        """Return the path that is read, of a file or of standard input; None if the source has none."""
        if self.kind == "pipe":
            return Path("/dev/stdin")
        address = self.address.reveal()
        return Path(address.removeprefix("file:")) if address.startswith("file:") else None

    @property
    def spec(self) -> str:
        """Return the text for errors and logs: the shown part of the address, or `NAME (ADDRESS)`."""
        shown = str(self.address)
        derived = printable(self.address.name, MAX_NAME)
        return shown if self.name in (derived, shown) else f"{self.name} ({shown})"


LISTEN_S = 5
"""Longest wait for a sender, after which a listening source listens again; it cannot be interrupted."""

_RTSP_SCHEMES = frozenset({"rtsp", "rtsps"})
_LIVE_SCHEMES = frozenset({"rtmp", "rtmps", "rtmpt", "rtmpts", "rtp", "srt", "tcp", "udp"})
_WEB_SCHEMES = frozenset({"http", "https", "ftp"})

# A session description (SDP) names the ports on which RTP arrives. FFmpeg opens network addresses named in a
# file only for the protocols in this list.
_SESSION_PROTOCOLS = "file,crypto,data,rtp,srtp,udp,tcp"

# Half a second of the stream is enough to find its format; FFmpeg would wait five for sound that never comes.
_RECEIVER = MappingProxyType({"analyzeduration": "500000", "fpsprobesize": "0"})

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_WEBCAM = re.compile(r"webcam(?::(?P<index>\d{1,3}))?")
_NAMED_WEBCAM = re.compile(r"webcam:\s*(?P<name>.+)")
_KEY = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_BY_NAME = "name:"  # prefix of the address of a camera that is looked up when it is opened
_VIDEO_DEVICE = re.compile(r"/dev/video(?P<index>\d{1,3})")
# Links to cameras that udev creates, by model and serial number or by USB port.
_STABLE_DEVICE = re.compile(r"/dev/v4l/by-[a-z]+/(?P<name>[^/]+)")
_LOOKS_LIKE_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!\\)")
_NAMED = re.compile(r"(?P<name>[^=/\\:?&@#]+)=(?P<source>.+)", re.DOTALL)


def split_name(text: str) -> tuple[str | None, str]:
    """Return the name and the address in `NAME=SOURCE`; no name if there is none, or a file is called so."""
    text = text.strip()
    named = None if _exists(text) else _NAMED.fullmatch(text)
    return (named["name"], named["source"].strip()) if named else (None, text)


def parse_source(
    text: str,
    *,
    name: str | None = None,
    rtsp_transport: Literal["tcp", "udp"] = "tcp",
    live: bool | None = None,
    hwaccel: str | None = None,
    platform: str = sys.platform,
) -> Source:
    """Parse a source as a user types it.

    Args:
        text: `rtsp://...`, `rtsps://...`, `webcam`, `webcam:N`, `webcam:MODEL`, `screen` (see
            `streams.input.devices.screen`), the path of a file, `-` for standard input, a URL, `browser`,
            `whip:KEY` or `demo`; any of them after `NAME=`.
        name: Display name; None for `NAME`, else the host or file name of the address.
        rtsp_transport: Transport of the RTP packets. TCP loses none; UDP must be allowed by the network.
        live: Whether a URL is live; None to decide by its scheme, or by what a web server sends. Ignored for
            other kinds.
        hwaccel: Hardware to decode with, by FFmpeg's name, such as `cuda`; None for the CPU.
        platform: Operating system as in `sys.platform`; selects the FFmpeg input of webcams.

    Returns:
        The source, not yet opened.

    Raises:
        SourceInvalid: The text does not name a source.
        SourceMissing: The file does not exist.
        SourceNotVideo: The path is a directory.
        ValueError: The transport or the hardware is unknown.
    """
    if rtsp_transport not in ("tcp", "udp"):
        raise ValueError(f"rtsp_transport must be tcp or udp, not {rtsp_transport!r}")
    if hwaccel is not None:
        check_hwaccel(hwaccel)
    name_in_text, text = split_name(text)
    name = name or name_in_text
    try:
        source = replace(_parse(text, rtsp_transport, live, platform), hwaccel=hwaccel)
        return source if name is None else replace(source, name=name, is_name_given=True)
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
    text = str(path)
    if _is_other_than_a_file(text):
        raise SourceInvalid(
            shown_text(text), "not a file", "give a video file; `unmask monitor` watches other sources"
        )
    return _file(path)


def _parse(text: str, rtsp_transport: str, live: bool | None, platform: str) -> Source:
    if not text:
        raise SourceInvalid("source", "nothing was given")
    if text == "demo":
        return Source(address=Address(text, shown=text, name=text), live=True, kind="demo")
    if webcam := _WEBCAM.fullmatch(text) or (platform == "linux" and _VIDEO_DEVICE.fullmatch(text)):
        return _webcam(f"webcam:{int(webcam['index'] or 0)}", int(webcam["index"] or 0), platform)
    if text == "-":
        return Source(address=Address("", shown="standard input", name="stdin"), live=None, kind="pipe")
    if text == "browser":
        return _pushed(text, shown=text, name=text)
    if text.startswith("whip:"):
        key = text.removeprefix("whip:")
        if not _KEY.fullmatch(key):
            reason = "its key must consist of 1 to 128 letters, digits and the characters . _ ~ -"
            raise SourceInvalid("whip:…", reason, "write whip:KEY")
        return _pushed(key, shown="whip:…", name="whip")
    if is_screen(text) and not _exists(text):
        return _screen(text, platform)
    if (webcam := _NAMED_WEBCAM.fullmatch(text)) and platform in WEBCAMS:
        return _named_webcam(text, webcam["name"], platform)
    if device := platform == "linux" and _STABLE_DEVICE.fullmatch(text):
        camera, address = WEBCAMS["linux"], Address(text, shown=text, name=device["name"])
        return Source(address=address, format=camera.format, options=camera.options, live=True, kind="webcam")
    if _SCHEME.match(text):
        return _address(text, rtsp_transport, live)
    path = Path(text)
    if path.suffix.lower() == ".sdp" and path.is_file():
        options = MappingProxyType({"protocol_whitelist": _SESSION_PROTOCOLS})
        return Source(address=file_address(path), format="sdp", options=options, live=True, kind="url")
    if _is_other_than_a_file(text) and not text.lower().startswith("file:"):
        raise SourceInvalid(shown_text(text), "neither a file nor a known kind of source")
    return _file(path)


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


def _named_webcam(text: str, name: str, platform: str) -> Source:
    webcam = WEBCAMS[platform]
    address = Address(f"{_BY_NAME}{name}", shown=text, name=text)
    return Source(address=address, format=webcam.format, options=webcam.options, live=True, kind="webcam")


def _pushed(key: str, *, shown: str, name: str) -> Source:
    address = Address(key, shown=shown, name=name)
    return Source(address=address, live=True, kind="push", listens=True, inlet=FrameInlet(key))


def _screen(text: str, platform: str) -> Source:
    grab = parse_screen(text, platform)
    address = Address(grab.url, shown=grab.shown, name=grab.shown)
    return Source(address=address, format=grab.format, options=grab.options, live=True, kind="screen")


def _address(text: str, rtsp_transport: str, live: bool | None) -> Source:
    address = network_address(text)
    scheme, parts = address.scheme, urlsplit(text)
    if scheme == "file":
        return _file(Path(url2pathname(parts.path)))
    if scheme not in _RTSP_SCHEMES | _LIVE_SCHEMES | _WEB_SCHEMES:
        raise SourceInvalid(address.shown, f"unknown scheme {scheme}://")
    if scheme == "rtmp" and parse_qs(parts.query).get("listen") == ["1"]:
        return _rtmp_listener(address, parts)
    # udp, tcp and srt may listen on every address.
    if not parts.hostname and scheme not in ("udp", "tcp", "srt"):
        raise SourceInvalid(f"{scheme}://…", "the address has no host")
    if scheme == "udp" and not parts.hostname:
        return Source(address=address, options=_RECEIVER, live=live is not False, kind="url", listens=True)
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


def _rtmp_listener(address: Address, parts: SplitResult) -> Source:
    if parts.port is None:
        raise SourceInvalid(address.shown, "the address has no port", "write rtmp://:1935/live/KEY?listen=1")
    url = urlunsplit(parts._replace(query=urlencode(parse_qsl(parts.query.replace("listen=1", "")))))
    options = MappingProxyType({**_RECEIVER, "listen": "1", "timeout": str(LISTEN_S)})
    listening = Address(url, shown=address.shown, name=address.name, scheme=address.scheme)
    return Source(address=listening, options=options, live=True, kind="url", listens=True)


def _file(path: Path) -> Source:
    try:
        missing, directory = not path.exists(), path.is_dir()
    except (OSError, ValueError):  # the name is too long or contains NUL
        raise SourceInvalid(shown_text(str(path)), "not a possible file name", "check the path") from None
    if missing:
        raise SourceMissing(shown_text(str(path)), "no such file", "check the path")
    if directory and not os.access(path, os.R_OK | os.X_OK):
        raise SourceUnauthorized(str(path), "no permission to list this directory", "let this user read it")
    if directory:
        raise SourceNotVideo(str(path), "is a directory", "give a video file")
    return Source(address=file_address(path), live=False, kind="file")


def _is_other_than_a_file(text: str) -> bool:
    """Return whether a text that names no file has the form of an address."""
    return _LOOKS_LIKE_SCHEME.match(text) is not None and not _exists(text)


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


def device_url(source: Source, cameras: Callable[[], Sequence[Camera]] = find_cameras) -> str:
    """Return the address that FFmpeg opens for a source.

    Args:
        source: Any source; only a camera by its name, and a DirectShow camera, have to be looked up.
        cameras: Returns the cameras of this machine.

    Returns:
        The address; it may contain a password.

    Raises:
        SourceMissing: There is no such camera.
    """
    address = source.address.reveal()
    if source.kind == "webcam" and address.startswith(_BY_NAME):
        return camera_url(address.removeprefix(_BY_NAME), source.spec, cameras)
    if source.format == "dshow":
        return camera_url(address, source.spec, cameras, by_number=True)
    return address
