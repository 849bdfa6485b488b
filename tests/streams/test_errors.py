"""Tests of the error classes."""

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
)


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
    raised = error("cam\x1b[31m", "went\nwrong", "do\u202e this")
    assert isinstance(raised, builtin)
    assert isinstance(raised, StreamError)
    assert raised.permanent is permanent
    assert str(raised) == "cam\N{REPLACEMENT CHARACTER}[31m: went wrong; do this"
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error
    assert str(again) == str(raised)
