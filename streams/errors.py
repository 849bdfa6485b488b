"""Errors of sources and streams, and the removal of credentials from text.

    StreamError
    ├── EndOfStream               a reader has no more frames
    └── SourceError
        ├── SourceInvalid         the text does not name a source          permanent
        ├── SourceMissing         no such file, device or path             permanent
        ├── SourceUnauthorized    wrong or missing credentials             permanent
        ├── SourceNotVideo        opened, but without decodable video      permanent
        └── SourceUnavailable     refused, silent, reset or disconnected   worth retrying

Every field of a SourceError has been through `redact`, so no message contains a password.
"""

from __future__ import annotations

import re
from typing import ClassVar

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
]

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>]*)")
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;#\s]*(?:pass|pwd|token|secret|auth|key|sig|credential|user)[^=&;#\s]*)=[^&;#\s'\"<>]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Remove credentials from every URL in a text and leave the rest unchanged.

    User and password are removed and the host stays. The value of a query parameter whose name looks like a
    secret (`?token=...`) becomes `***`.

    Args:
        text: Any text, such as an FFmpeg message.

    Returns:
        The text without credentials.
    """
    return _SECRET_PARAMETER.sub(r"\g<name>=***", _URL.sub(_without_userinfo, text))


def _without_userinfo(url: re.Match[str]) -> str:
    scheme, rest = url["scheme"], url["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return scheme + rest[authority.rindex("@") + 1 :]
    # An unescaped "/", "?" or "#" in a password ends the authority early: `user:pa/ss@host`. A harmless
    # address with a colon and a later "@" is shortened too, which is better than showing a password.
    if ":" in authority and not authority.startswith("[") and "@" in rest:
        return scheme + rest[rest.rindex("@") + 1 :]
    return scheme + rest


class StreamError(Exception):
    """Base class of the errors of this package."""


class EndOfStream(StreamError):
    """End of a reader's frames; `__cause__` is the error that ended them, if any."""

    def __str__(self) -> str:
        return "the stream has ended"


class SourceError(StreamError):
    """Failure to read a source.

    Args:
        source: The source as it is shown to users; credentials are removed.
        reason: What happened, in a few words; credentials are removed.
        advice: What to do about it; `default_advice` of the class if empty.
    """

    permanent: ClassVar[bool] = True
    """Whether retrying without a change is pointless."""

    default_advice: ClassVar[str] = "check the source"

    def __init__(self, source: str, reason: str, advice: str = "") -> None:
        # OSError.__init__ would take two arguments for errno and strerror, so it is not called. Pickle
        # rebuilds the error from `args`.
        self.source = _one_line(source)
        self.reason = _one_line(reason)
        self.advice = _one_line(advice or self.default_advice)
        self.args = (self.source, self.reason, self.advice)

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}; {self.advice}"


def _one_line(text: str) -> str:
    return " ".join(redact(text).split())


class SourceInvalid(SourceError, ValueError):
    """Text that does not name a source."""

    default_advice = "give an rtsp:// address, webcam, webcam:1, a video file, a URL or demo"


class SourceMissing(SourceError, FileNotFoundError):
    """File, device or path on a server that does not exist."""

    default_advice = "check the name"


class SourceUnauthorized(SourceError, PermissionError):
    """Source that refuses these credentials, or that this user may not read."""

    default_advice = "check user and password in the address"


class SourceNotVideo(SourceError, ValueError):
    """Source that was opened and contains no decodable video."""

    default_advice = "give a video"


class SourceUnavailable(SourceError, ConnectionError):
    """Source that does not respond now but may respond later."""

    permanent = False
    default_advice = "check that it is switched on and reachable"
