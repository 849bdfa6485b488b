"""Tests of the error classes and of the removal of credentials."""

from __future__ import annotations

import pickle

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
    """User, password and secret parameters are removed; the rest of the text is unchanged."""
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
    """Each class also inherits the matching builtin, states whether it is permanent, and can be pickled."""
    raised = error("rtsp://ada:secret@host/cam", "went\nwrong at rtsp://ada:secret@host", "do this")
    assert isinstance(raised, builtin)
    assert isinstance(raised, StreamError)
    assert raised.permanent is permanent
    assert str(raised) == "rtsp://host/cam: went wrong at rtsp://host; do this"
    assert "secret" not in repr(raised)
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error
    assert str(again) == str(raised)
