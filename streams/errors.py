"""What can go wrong between a source's name and its pictures.

    StreamError
    ├── EndOfStream               a reader that has nothing more to give
    └── SourceError
        ├── SourceInvalid         the text names no source             permanent
        ├── SourceMissing         no such file, device or path          permanent
        ├── SourceUnauthorized    wrong or missing credentials          permanent
        ├── SourceNotVideo        opened, and holds no pictures         permanent
        └── SourceUnavailable     refused, silent, reset, gone          worth another try

Every message has been through `redact`, so no error can carry a password.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import av

__all__ = [
    "EndOfStream",
    "SourceError",
    "SourceInvalid",
    "SourceMissing",
    "SourceNotVideo",
    "SourceUnauthorized",
    "SourceUnavailable",
    "StreamError",
    "redact",
    "source_error",
]

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>]*)")
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;#\s]*(?:pass|pwd|token|secret|auth|key|sig|credential|user)[^=&;#\s]*)=[^&;#\s'\"<>]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Remove credentials from every URL in a text and keep the rest as it is.

    User and password go, the host stays. The value of a query parameter whose name looks like a secret
    (`?token=...`) becomes `***`.

    Args:
        text: Any text, such as a message of FFmpeg.

    Returns:
        The text without credentials.
    """
    return _SECRET_PARAMETER.sub(r"\g<name>=***", _URL.sub(_without_userinfo, text))


def _without_userinfo(url: re.Match[str]) -> str:
    scheme, rest = url["scheme"], url["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return scheme + rest[authority.rindex("@") + 1 :]
    # A password typed with a bare "/", "?" or "#" ends the authority early: `user:pa/ss@host`. A harmless
    # address with a colon and a later "@" loses its front too: better a poor display than a shown password.
    if ":" in authority and not authority.startswith("[") and "@" in rest:
        return scheme + rest[rest.rindex("@") + 1 :]
    return scheme + rest


class StreamError(Exception):
    """Base of every error of this package."""


class EndOfStream(StreamError):
    """A reader has ended or failed: it will give no more frames."""


class SourceError(StreamError):
    """A source cannot be read.

    Args:
        source: The source as shown to people; redacted here once more.
        reason: What happened, in a few words; redacted here.
        advice: What to do about it; each class has its own when this is empty.
    """

    permanent: ClassVar[bool] = True
    """Whether trying again without changing anything is pointless."""

    default_advice: ClassVar[str] = "check the source"

    def __init__(self, source: str, reason: str, advice: str = "") -> None:
        # OSError.__init__ would read two arguments as errno and strerror, so it is not called; `args` is what
        # pickle rebuilds the error from.
        self.source = _one_line(source)
        self.reason = _one_line(reason)
        self.advice = _one_line(advice or self.default_advice)
        self.args = (self.source, self.reason, self.advice)

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}; {self.advice}"


def _one_line(text: str) -> str:
    return " ".join(redact(text).split())


class SourceInvalid(SourceError, ValueError):
    """The text given does not name a source."""

    default_advice = "give an rtsp:// address, webcam, webcam:1, a video file, a URL or demo"


class SourceMissing(SourceError, FileNotFoundError):
    """There is no such file, device or path on the server."""

    default_advice = "check the name"


class SourceUnauthorized(SourceError, PermissionError):
    """The source wants other credentials, or permissions this user lacks."""

    default_advice = "check user and password in the address"


class SourceNotVideo(SourceError, ValueError):
    """The source was opened and holds no pictures."""

    default_advice = "give a video"


class SourceUnavailable(SourceError, ConnectionError):
    """The source does not answer now; it may later."""

    permanent = False
    default_advice = "check that it is switched on and reachable"


_NETWORK_REASONS: Mapping[int, str] = MappingProxyType(
    {
        errno.ECONNREFUSED: "connection refused",
        errno.ECONNRESET: "the connection was reset",
        errno.ECONNABORTED: "the connection was aborted",
        errno.EPIPE: "the connection was closed",
        errno.ETIMEDOUT: "no answer in time",
        errno.EHOSTUNREACH: "the host cannot be reached",
        errno.ENETUNREACH: "the network cannot be reached",
        errno.EAGAIN: "no data in time",
    }
)


def source_error(failure: Exception, *, source: str, kind: str, connected: bool = False) -> SourceError:
    """Translate what FFmpeg raised into what it means for the user.

    Only the error's number is used: its text and file name can hold the address with its password.

    Args:
        failure: What PyAV raised.
        source: The source as shown to people.
        kind: `Source.kind`: the same number means different things for a file and a camera.
        connected: Whether the source had been opened before.

    Returns:
        The error to report; not raised, and without the original as its cause, which holds the full address.
    """
    number = failure.errno if isinstance(failure, OSError | av.FFmpegError) else None
    local = kind in ("file", "webcam")
    match failure:
        case av.error.HTTPUnauthorizedError():
            return SourceUnauthorized(source, "the server refused the credentials (401)")
        case av.error.HTTPForbiddenError():
            return SourceUnauthorized(source, "the server forbids access (403)")
        case av.error.HTTPNotFoundError():
            return SourceMissing(
                source, "the server has nothing there (404)", "check the path in the address"
            )
        case av.error.HTTPClientError() | av.error.HTTPServerError():
            return SourceUnavailable(source, "the server answered with an error", "check the server")
        case PermissionError():
            if local:
                return SourceUnauthorized(source, "no permission", f"let this user read the {kind}")
            return SourceUnavailable(source, "connecting is not permitted", "check firewall and address")
        case IsADirectoryError():
            return SourceNotVideo(source, "is a directory", "give a video file")
        case FileNotFoundError() | NotADirectoryError():
            if kind == "webcam":
                return SourceMissing(source, "no such camera", "check that it is plugged in, or try webcam:1")
            return SourceMissing(source, "no such file", "check the path")
        case av.error.ProtocolNotFoundError():
            return SourceInvalid(source, "unknown kind of address")
        case av.error.DemuxerNotFoundError():
            return SourceInvalid(source, "this kind of source is not supported on this system")
        case av.error.DecoderNotFoundError():
            return SourceNotVideo(source, "no decoder for its video format", "convert it to H.264")
        case av.error.InvalidDataError() | av.error.EOFError() | av.error.ArgumentError() if kind == "file":
            return SourceNotVideo(source, "not a video FFmpeg can read")
        case av.error.InvalidDataError():
            return SourceUnavailable(source, "the answer is not a video stream", "check the address")
        case av.error.EOFError():
            return SourceUnavailable(source, "the stream stopped")
        case av.error.ExitError():
            # PyAV's interrupt: the time given to the operation ran out.
            return SourceUnavailable(source, "no answer in time")
    if kind == "webcam":
        if number in (errno.ENODEV, errno.ENXIO):
            return SourceMissing(source, "no such camera", "check that it is plugged in, or try webcam:1")
        if number == errno.ENOTTY:
            return SourceMissing(source, "not a camera", "try webcam:1")
        if number == errno.EBUSY:
            return SourceUnavailable(source, "the camera is in use", "close the program that uses it")
    if number is not None and number in _NETWORK_REASONS:
        return SourceUnavailable(source, _NETWORK_REASONS[number])
    if number == errno.EIO and not local:
        if connected:
            return SourceUnavailable(source, "the connection broke off")
        # FFmpeg reports a host name that does not resolve as an I/O error.
        return SourceUnavailable(source, "cannot be reached", "check the address and the network")
    reason = getattr(failure, "strerror", None) or type(failure).__name__
    return SourceUnavailable(source, f"cannot be read ({reason})", "check the source")
