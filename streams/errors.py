"""Errors of sources and streams.

    StreamError
    ├── EndOfStream               a reader has no more frames
    └── SourceError
        ├── SourceInvalid         the text does not name a source          permanent
        ├── SourceMissing         no such file, device or path             permanent
        ├── SourceUnauthorized    wrong or missing credentials             permanent
        ├── SourceNotVideo        opened, but without decodable video      permanent
        └── SourceUnavailable     refused, silent, reset or disconnected   worth retrying
            └── SourceWaiting     listens, and nobody sends to it

Their text consists of the part of the source that may be shown (`streams.input.address`), a reason and
advice. No text of FFmpeg is quoted, because it can contain the address with its password.
"""

from __future__ import annotations

from typing import ClassVar

from streams.text import printable

__all__ = [
    "EndOfStream",
    "SourceError",
    "SourceInvalid",
    "SourceMissing",
    "SourceNotVideo",
    "SourceUnauthorized",
    "SourceUnavailable",
    "SourceWaiting",
    "StreamError",
]


class StreamError(Exception):
    """Base class of the errors of this package."""


class EndOfStream(StreamError):
    """End of a reader's frames; `__cause__` is the error that ended them, if any."""

    def __str__(self) -> str:
        return "the stream has ended"


class SourceError(StreamError):
    """Failure to read a source.

    Args:
        source: Text that identifies the source, without secrets; `Source.spec`.
        reason: Cause, in a few words.
        advice: Advice to the user; `default_advice` of the class if empty.
    """

    permanent: ClassVar[bool] = True
    """Whether retrying without a change is pointless."""

    default_advice: ClassVar[str] = "check the source"

    def __init__(self, source: str, reason: str, advice: str = "") -> None:
        # OSError.__init__ would take two arguments for errno and strerror, so it is not called. Pickle
        # rebuilds the error from `args`.
        self.source = printable(source)
        self.reason = printable(reason)
        self.advice = printable(advice or self.default_advice)
        self.args = (self.source, self.reason, self.advice)

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}; {self.advice}"


class SourceInvalid(SourceError, ValueError):
    """Text that does not name a source."""

    default_advice = "give an rtsp:// address, webcam, screen, a video file, a URL or demo"


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


class SourceWaiting(SourceUnavailable):
    """Listening source to which nobody sends; it listens again at once."""

    default_advice = "start the sender"
