"""Tests of the translation of FFmpeg's errors."""

from __future__ import annotations

import errno

import av
import pytest

from streams.errors import (
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceNotVideo,
    SourceUnauthorized,
    SourceUnavailable,
)
from streams.input.address import Address
from streams.input.capture.ffmpeg_errors import source_error
from streams.input.source import Kind, Source


def ffmpeg(number: int) -> av.FFmpegError:
    """Return the error that PyAV raises for an FFmpeg error number, with a password in its file name."""
    try:
        av.error.err_check(-number, "rtsp://ada:secret@host/cam")
    except av.FFmpegError as error:
        return error
    raise AssertionError(f"{number} is no error")


# FFmpeg encodes its own errors as four letters in one number.
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, OTHER_4XX, SERVER_ERROR = (
    av.error.tag_to_code(b"\xf8" + letters) for letters in (b"401", b"403", b"404", b"4XX", b"5XX")
)
EXIT, END, INVALID_DATA = (av.error.tag_to_code(letters) for letters in (b"EXIT", b"EOF ", b"INDA"))
NO_PROTOCOL, NO_DEMUXER, NO_DECODER = (
    av.error.tag_to_code(b"\xf8" + letters) for letters in (b"PRO", b"DEM", b"DEC")
)


@pytest.mark.parametrize(
    ("number", "kind", "expected", "words"),
    [
        (UNAUTHORIZED, "rtsp", SourceUnauthorized, "401"),
        (FORBIDDEN, "url", SourceUnauthorized, "403"),
        (NOT_FOUND, "rtsp", SourceMissing, "404"),
        (OTHER_4XX, "rtsp", SourceUnavailable, "answered with an error"),
        (SERVER_ERROR, "url", SourceUnavailable, "answered with an error"),
        (errno.ECONNREFUSED, "rtsp", SourceUnavailable, "refused"),
        (errno.ECONNRESET, "rtsp", SourceUnavailable, "reset"),
        (errno.ETIMEDOUT, "rtsp", SourceUnavailable, "no answer in time"),
        (errno.EHOSTUNREACH, "rtsp", SourceUnavailable, "host"),
        (errno.ENETUNREACH, "rtsp", SourceUnavailable, "network"),
        (errno.EIO, "rtsp", SourceUnavailable, "cannot be reached"),
        (errno.EACCES, "rtsp", SourceUnavailable, "not permitted"),
        (EXIT, "rtsp", SourceUnavailable, "no answer in time"),
        (END, "rtsp", SourceUnavailable, "stopped"),
        (INVALID_DATA, "rtsp", SourceUnavailable, "not a video stream"),
        (INVALID_DATA, "file", SourceNotVideo, "not a video"),
        (END, "file", SourceNotVideo, "not a video"),
        (NO_PROTOCOL, "url", SourceInvalid, "no support for srt://"),
        (NO_DEMUXER, "webcam", SourceInvalid, "not supported"),
        (NO_DECODER, "file", SourceNotVideo, "no decoder"),
        (errno.ENOENT, "file", SourceMissing, "no such file"),
        (errno.EISDIR, "file", SourceNotVideo, "directory"),
        (errno.EACCES, "file", SourceUnauthorized, "permission"),
        (errno.EIO, "file", SourceUnavailable, "Input/output"),
        (errno.ENOENT, "webcam", SourceMissing, "no such camera"),
        (errno.ENODEV, "webcam", SourceMissing, "no such camera"),
        (errno.ENOTTY, "webcam", SourceMissing, "not a camera"),
        (errno.EBUSY, "webcam", SourceUnavailable, "in use"),
        (errno.EACCES, "webcam", SourceUnauthorized, "permission"),
    ],
)
def test_ffmpegs_errors_are_translated(
    number: int, kind: Kind, expected: type[SourceError], words: str
) -> None:
    """Each FFmpeg error number becomes a SourceError with a one-line message and no password."""
    address = Address("srt://host", shown="cam", name="cam", scheme="srt")
    error = source_error(ffmpeg(number), Source(address=address, live=kind != "file", kind=kind))
    assert type(error) is expected
    message = str(error)
    assert words in message
    assert message.startswith("cam: ")
    assert "\n" not in message
    assert "secret" not in message + repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None
