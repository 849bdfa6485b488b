"""Tests of the errors: their tree, their messages, and that no password is in them."""

from __future__ import annotations

import errno
import pickle

import av
import pytest

from streams.errors import (
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceNotVideo,
    SourceUnauthorized,
    SourceUnavailable,
    StreamError,
    redact,
    source_error,
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("rtsp://ada:secret@10.0.0.7:554/cam", "rtsp://10.0.0.7:554/cam"),
        ("rtsp://ada@host/cam", "rtsp://host/cam"),
        ("rtsp://ada:se:cr@et@host/cam", "rtsp://host/cam"),
        ("rtsp://ada:se/cret@host/cam", "rtsp://host/cam"),
        ("rtsp://ada:se?c#ret@host/cam", "rtsp://host/cam"),
        ("rtsp://ada:12/cret@host/cam", "rtsp://host/cam"),
        ("open 'http://a:secret@x/y', then rtsp://b:secret@z", "open 'http://x/y', then rtsp://z"),
        ("http://host/v.cgi?user=ada&pwd=secret&size=1", "http://host/v.cgi?user=***&pwd=***&size=1"),
        ("http://host/v?access_token=secret", "http://host/v?access_token=***"),
        ("rtsp://[fe80::1]:554/cam", "rtsp://[fe80::1]:554/cam"),
        ("http://host/me@home.mp4", "http://host/me@home.mp4"),
        ("clips/mail@home.mp4", "clips/mail@home.mp4"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_credentials_are_removed_anywhere(text: str, clean: str) -> None:
    """User, password and secret parameters go, the rest of the text stays."""
    assert redact(text) == clean


@pytest.mark.parametrize(
    ("error", "builtin", "permanent"),
    [
        (SourceInvalid, ValueError, True),
        (SourceMissing, FileNotFoundError, True),
        (SourceUnauthorized, PermissionError, True),
        (SourceNotVideo, ValueError, True),
        (SourceUnavailable, ConnectionError, False),
    ],
)
def test_each_error_is_also_the_matching_builtin(
    error: type[SourceError], builtin: type[Exception], permanent: bool
) -> None:
    """Each kind is the builtin it resembles as well, knows if it is permanent, and survives pickling."""
    raised = error("rtsp://ada:secret@host/cam", "went\nwrong at rtsp://ada:secret@host", "do this")
    assert isinstance(raised, builtin)
    assert isinstance(raised, StreamError)
    assert raised.permanent is permanent
    assert str(raised) == "rtsp://host/cam: went wrong at rtsp://host; do this"
    assert "secret" not in repr(raised)
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error
    assert str(again) == str(raised)


def ffmpeg(number: int) -> av.FFmpegError:
    """Make the error PyAV raises for an FFmpeg error number, with an address that must not show."""
    try:
        av.error.err_check(-number, "rtsp://ada:secret@host/cam")
    except av.FFmpegError as error:
        return error
    raise AssertionError(f"{number} is no error")


# FFmpeg's own errors are four letters read as a number.
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
        (NO_PROTOCOL, "url", SourceInvalid, "unknown kind"),
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
    number: int, kind: str, expected: type[SourceError], words: str
) -> None:
    """Each of FFmpeg's numbers becomes the error that says what happened, in one line without the address."""
    error = source_error(ffmpeg(number), source="cam", kind=kind)
    assert type(error) is expected
    message = str(error)
    assert words in message
    assert message.startswith("cam: ")
    assert "\n" not in message
    assert "secret" not in message + repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None
