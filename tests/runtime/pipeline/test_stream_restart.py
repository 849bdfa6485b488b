"""Tests of the decisions on a stream that has failed with an unexpected error."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.pipeline.stream_state import Restart, RestartPolicy
from streams.input.reader import Backoff
from streams.input.source import parse_source

CAMERA = "rtsp://ada:s3cr3t@10.0.0.7/live"
BACKOFF = Backoff(first_s=0.5, max_s=4.0)


def failure(text: str) -> ValueError:
    """Return an error that was raised here."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def fail(policy: RestartPolicy, error: BaseException, ran_s: float = 0.0, *, finite: bool = False) -> Restart:
    return policy.failed(error, ran_s=ran_s, finite=finite, chance=0.0)


def test_a_camera_starts_again_for_ever_with_backoff() -> None:
    """The delay doubles up to its maximum, and begins again after a long run."""
    policy = RestartPolicy(parse_source(CAMERA), BACKOFF)
    delays = [fail(policy, failure("x"), ran_s).delay_s for ran_s in (0, 0, 1, 2, 0, 5, 0)]
    assert delays == [0.5, 1, 2, 4, 4, 0.5, 1]


def test_a_file_is_given_up(clip: Path) -> None:
    """A file that fails every time ends the stream, so that the program can end."""
    policy = RestartPolicy(parse_source(str(clip)), BACKOFF)
    restarts = [fail(policy, failure("x"), finite=True) for _ in range(3)]
    assert [restart.delay_s for restart in restarts] == [0.5, 1, None]
    assert "not trying again" in restarts[-1].log


def test_a_traceback_is_logged_once() -> None:
    """The same error again is one line; another one has its traceback."""
    policy = RestartPolicy(parse_source(CAMERA), BACKOFF)
    logs = [fail(policy, error).log for error in (failure("x"), failure("x"), KeyError("y"), failure("x"))]
    assert ["ValueError: x" in log or "KeyError: 'y'" in log for log in logs] == [True, False, True, True]
    assert logs[1] == (
        "10.0.0.7: internal error (ValueError), starting again in 1.0 s; the other streams continue"
    )


@pytest.mark.parametrize("text", [CAMERA, f"cannot open {CAMERA}?x=1", "a\x1b[31m\x07b"])
def test_nothing_secret_or_hostile_is_shown(text: str) -> None:
    """The address is shown without its password, and control characters are replaced."""
    restart = fail(RestartPolicy(parse_source(CAMERA), BACKOFF), failure(text))
    assert "s3cr3t" not in restart.log
    assert all(line.isprintable() for line in restart.log.splitlines())
    assert restart.reason == "internal error (ValueError), see the log"
