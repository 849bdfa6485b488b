"""Translation of FFmpeg's errors to `SourceError`: one table by exception type, one by error number."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import av

from streams.errors import (
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceNotVideo,
    SourceUnauthorized,
    SourceUnavailable,
)
from streams.input.source import Source

__all__ = ["UNSEEKABLE", "UNSEEKABLE_PIPE", "source_error"]


class _Rule(NamedTuple):
    error: type[SourceError]
    reason: str
    advice: str = ""


_NO_CAMERA = _Rule(SourceMissing, "no such camera", "check that it is plugged in, or try webcam:1")
_NO_SCREEN = _Rule(
    SourceMissing,
    "no such screen, or no permission to read it",
    "check DISPLAY and XAUTHORITY; `unmask doctor` lists the screens",
)
_SCREEN_CHANGED = _Rule(SourceUnavailable, "the screen cannot be read", "check that its session runs")
_NOT_FOUND = _Rule(SourceMissing, "no such file", "check the path")
_NOT_VIDEO = _Rule(SourceNotVideo, "not a video FFmpeg can read")
UNSEEKABLE = (
    "the index of the MP4 is at its end, and the server cannot seek",
    "download the file first, or write it with `ffmpeg -movflags faststart`",
)
"""Reason and advice for an MP4 that FFmpeg can open but not read."""
UNSEEKABLE_PIPE = (
    "the index of the MP4 is at its end, which a pipe cannot seek to",
    "give the file itself, or pipe MPEG-TS: ffmpeg -i FILE -c copy -f mpegts -",
)
_NOT_A_PIPED_VIDEO = _Rule(
    SourceNotVideo, "is empty, or not a video FFmpeg can read", "pipe MPEG-TS into it: ffmpeg … -f mpegts -"
)
_DOWNLOAD_NOT_VIDEO = _Rule(SourceNotVideo, "not a video FFmpeg can read, or cut short", "check the address")

# The same error means different things for a file, a webcam and a network address: the rules of the source's
# kind are tried first, then these in order.
_TYPE_RULES: Mapping[type[Exception], _Rule] = MappingProxyType(
    {
        av.error.HTTPUnauthorizedError: _Rule(SourceUnauthorized, "the server refused the credentials (401)"),
        av.error.HTTPForbiddenError: _Rule(SourceUnauthorized, "the server forbids access (403)"),
        av.error.HTTPNotFoundError: _Rule(
            SourceMissing, "the server has nothing there (404)", "check the path in the address"
        ),
        av.error.HTTPClientError: _Rule(
            SourceUnavailable, "the server answered with an error", "check the server"
        ),
        av.error.HTTPServerError: _Rule(
            SourceUnavailable, "the server answered with an error", "check the server"
        ),
        PermissionError: _Rule(
            SourceUnavailable, "connecting is not permitted", "check firewall and address"
        ),
        IsADirectoryError: _Rule(SourceNotVideo, "is a directory", "give a video file"),
        FileNotFoundError: _NOT_FOUND,
        NotADirectoryError: _NOT_FOUND,
        av.error.ProtocolNotFoundError: _Rule(
            SourceInvalid,
            "the installed FFmpeg has no support for {scheme}://",
            "convert the stream to rtsp:// or http://, for example with MediaMTX or ffmpeg",
        ),
        av.error.DemuxerNotFoundError: _Rule(
            SourceInvalid, "this kind of source is not supported on this system"
        ),
        av.error.DecoderNotFoundError: _Rule(
            SourceNotVideo, "no decoder for its video format", "convert it to H.264"
        ),
        av.error.InvalidDataError: _Rule(
            SourceUnavailable, "the answer is not a video stream", "check the address"
        ),
        av.error.EOFError: _Rule(SourceUnavailable, "the stream stopped"),
        # PyAV interrupts FFmpeg when the time for an operation is over.
        av.error.ExitError: _Rule(SourceUnavailable, "no answer in time"),
    }
)
_TYPE_RULES_BY_KIND: Mapping[str, Mapping[type[Exception], _Rule]] = MappingProxyType(
    {
        "file": {
            PermissionError: _Rule(SourceUnauthorized, "no permission", "let this user read the file"),
            av.error.InvalidDataError: _NOT_VIDEO,
            av.error.EOFError: _NOT_VIDEO,
            av.error.ArgumentError: _NOT_VIDEO,
        },
        "pipe": {
            av.error.InvalidDataError: _NOT_A_PIPED_VIDEO,
            av.error.EOFError: _NOT_A_PIPED_VIDEO,
            av.error.ArgumentError: _NOT_A_PIPED_VIDEO,
        },
        "screen": {
            av.error.ArgumentError: _Rule(
                SourceInvalid, "the region is not within the screen", "give a region inside it"
            ),
            PermissionError: _SCREEN_CHANGED,
        },
        "download": {
            av.error.InvalidDataError: _DOWNLOAD_NOT_VIDEO,
            av.error.EOFError: _DOWNLOAD_NOT_VIDEO,
        },
        "webcam": {
            PermissionError: _Rule(SourceUnauthorized, "no permission", "let this user read the webcam"),
            FileNotFoundError: _NO_CAMERA,
            NotADirectoryError: _NO_CAMERA,
        },
    }
)

_WRONG_SENDER = _Rule(
    SourceUnavailable, "what was sent to it is not a video stream", "check protocol and address of the sender"
)
_NO_LIBSRT = _Rule(
    SourceInvalid,
    "the installed FFmpeg has no support for srt://, because it is built without libsrt, as PyAV's wheel is",
    "convert the stream (ffmpeg -i srt://… -c copy -f mpegts - | unmask monitor -), or build PyAV yourself",
)

_NUMBER_RULES: Mapping[int, _Rule] = MappingProxyType(
    {
        errno.ECONNREFUSED: _Rule(SourceUnavailable, "connection refused"),
        errno.ECONNRESET: _Rule(SourceUnavailable, "the connection was reset"),
        errno.ECONNABORTED: _Rule(SourceUnavailable, "the connection was aborted"),
        errno.EPIPE: _Rule(SourceUnavailable, "the connection was closed"),
        errno.EADDRINUSE: _Rule(
            SourceUnavailable, "the port is in use", "stop the other program or choose another port"
        ),
        errno.EADDRNOTAVAIL: _Rule(SourceUnavailable, "this machine has no such address"),
        errno.ETIMEDOUT: _Rule(SourceUnavailable, "no answer in time"),
        errno.EHOSTUNREACH: _Rule(SourceUnavailable, "the host cannot be reached"),
        errno.ENETUNREACH: _Rule(SourceUnavailable, "the network cannot be reached"),
        errno.EAGAIN: _Rule(SourceUnavailable, "no data in time"),
    }
)
_WEBCAM_NUMBER_RULES: Mapping[int, _Rule] = MappingProxyType(
    {
        errno.ENODEV: _NO_CAMERA,
        errno.ENXIO: _NO_CAMERA,
        errno.ENOTTY: _Rule(SourceMissing, "not a camera", "try webcam:1"),
        errno.EBUSY: _Rule(SourceUnavailable, "the camera is in use", "close the program that uses it"),
    }
)
# FFmpeg reports a host name that does not resolve as an I/O error.
_CANNOT_CONNECT = _Rule(SourceUnavailable, "cannot be reached", "check the address and the network")
_CONNECTION_LOST = _Rule(SourceUnavailable, "the connection broke off")


def source_error(failure: Exception, source: Source, *, connected: bool = False) -> SourceError:
    """Translate an FFmpeg error.

    Only its type and number are used: its text and file name can contain the address with its password.

    Args:
        failure: The exception raised by PyAV.
        source: The source that could not be opened or read.
        connected: Whether the source had been opened before.

    Returns:
        The error, not raised. Raise it outside the `except` block: the original exception must not become
        its context, because it contains the full address.
    """
    if isinstance(failure, av.error.ProtocolNotFoundError) and source.address.scheme == "srt":
        return _NO_LIBSRT.error(source.spec, _NO_LIBSRT.reason, _NO_LIBSRT.advice)
    if source.listens and not connected and _is_wrong_sender(failure):
        return _WRONG_SENDER.error(source.spec, _WRONG_SENDER.reason, _WRONG_SENDER.advice)
    kind = "download" if not connected and source.is_named_as_file else source.kind
    rule = (
        _by_type(failure, _TYPE_RULES_BY_KIND.get(kind, {}))
        or _by_type(failure, _TYPE_RULES)
        or _by_number(failure, kind, connected)
    )
    if rule is None:
        number = getattr(failure, "errno", None) or 0
        # FFmpeg's own errors are numbers that the system does not know.
        reason = os.strerror(number) if number in errno.errorcode else type(failure).__name__
        rule = _Rule(SourceUnavailable, f"cannot be read ({reason})", "check the source")
    return rule.error(source.spec, rule.reason.replace("{scheme}", source.address.scheme), rule.advice)


def _is_wrong_sender(failure: Exception) -> bool:
    """Return whether what came to a listening source was the fault, and not its address."""
    closed = (errno.EIO, errno.ECONNRESET, errno.EPIPE)
    return isinstance(failure, av.error.InvalidDataError | av.error.EOFError) or (
        isinstance(failure, OSError) and failure.errno in closed
    )


def _by_type(failure: Exception, rules: Mapping[type[Exception], _Rule]) -> _Rule | None:
    return next((rule for error, rule in rules.items() if isinstance(failure, error)), None)


def _by_number(failure: Exception, kind: str, connected: bool) -> _Rule | None:
    number = failure.errno if isinstance(failure, OSError | av.FFmpegError) else None
    if number is None:
        return None
    if kind == "webcam" and number in _WEBCAM_NUMBER_RULES:
        return _WEBCAM_NUMBER_RULES[number]
    if number == errno.EIO and kind == "screen":
        return _NO_SCREEN
    if number == errno.EIO and kind not in ("file", "webcam"):
        return _CONNECTION_LOST if connected else _CANNOT_CONNECT
    return _NUMBER_RULES.get(number)
