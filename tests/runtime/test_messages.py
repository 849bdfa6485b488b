"""Messages hold only what the description allows, and are written as JSON that any reader takes."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest

from runtime.messages import (
    FACE_STATES,
    PROTOCOL_VERSION,
    STREAM_STATES,
    HeartbeatMessage,
    Identity,
    Latency,
    StreamHealth,
    StreamMessage,
    StreamState,
    VerdictMessage,
    encode,
    relative_box,
    snapshot,
)
from tests.support.wire import IDENTITY, LATENCY, description, validate, verdict


@pytest.mark.parametrize("state", sorted(FACE_STATES))
def test_a_verdict_of_every_state_fits_the_description(state: str) -> None:
    """Whatever a face's state, its message is one that asyncapi.yaml allows."""
    validate(json.loads(encode(verdict(state=state).stamp(3, 1735689600.375))))


@pytest.mark.parametrize("state", get_args(StreamState))
def test_a_stream_of_every_state_fits_the_description(state: StreamState) -> None:
    """Whatever a stream's state, its message is one that asyncapi.yaml allows."""
    validate(StreamMessage(stream="cam", state=state).stamp(1, 0.0))
    validate(StreamMessage(stream="cam", state=state, reason="because").stamp(1, 0.0))


def test_the_other_messages_fit_the_description() -> None:
    """Heartbeat, hello and snapshot are what asyncapi.yaml says, with and without what is optional."""
    health = StreamHealth(stream="cam", state="live", analysed=3, dropped=1, reconnects=2)
    validate(HeartbeatMessage(uptime_s=1.5).stamp(1, 0.0))
    validate(HeartbeatMessage(uptime_s=1.5, streams=(health,)).stamp(2, 0.0))
    validate(IDENTITY.hello(0, 0.0))
    validate(Identity(version="1", session="x").hello(7, 1.0))
    stream = StreamMessage(stream="cam", state="live").stamp(1, 0.0)
    validate(snapshot(2, 3.0, [stream], [verdict().stamp(2, 0.0)]))
    assert IDENTITY.hello(0, 0.0)["protocol"] == PROTOCOL_VERSION


def test_the_description_knows_the_same_states() -> None:
    """The states of the code and of asyncapi.yaml are the same sets."""
    schemas = description()["components"]["schemas"]
    assert set(schemas["faceState"]["enum"]) == FACE_STATES
    assert set(schemas["streamState"]["enum"]) == STREAM_STATES


@pytest.mark.parametrize("state", sorted(FACE_STATES))
def test_the_description_ties_the_score_to_the_state(state: str) -> None:
    """A message with a score where none may be, or without one where one must be, is refused."""
    message: dict[str, Any] = dict(verdict(state=state).stamp(1, 0.0))
    message["p_fake"] = 0.5 if message["p_fake"] is None else None
    with pytest.raises(jsonschema.ValidationError):
        validate(message)


@pytest.mark.parametrize(
    "wrong",
    [{"more": 1}, {"state": "offline"}, {"box": [0.1, 0.1, 0.1]}, {"fill": 1.5}, {"seq": None}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_the_description_refuses_what_is_no_verdict(wrong: dict[str, Any]) -> None:
    """The description is strict, or testing against it would prove nothing."""
    with pytest.raises(jsonschema.ValidationError):
        validate({**verdict().stamp(1, 0.0), **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "maybe"},
        {"p_fake": None},
        {"p_fake": math.nan},
        {"p_fake": 1.01},
        {"state": "warming", "p_fake": 0.5},
        {"state": "stale", "p_fake": 0.0},
        {"box": (0.0, 0.0, 1.0, 1.1)},
        {"box": (0.0, 0.0, 1.0)},
        {"box": (0.0, math.nan, 1.0, 1.0)},
        {"fill": -0.1},
        {"face": -1},
        {"pts_s": math.inf},
        {"captured": math.nan},
        {"latency_ms": None},
    ],
    ids=str,
)
def test_a_verdict_that_contradicts_itself_cannot_be_made(wrong: dict[str, Any]) -> None:
    """A score without its state, a state without its score, and numbers that are none are refused at once."""
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        verdict(**wrong)


def test_a_stale_verdict_needs_no_latency() -> None:
    """No frame stands behind a verdict that has expired, so nothing was spent on it."""
    assert verdict(state="stale", latency_ms=None).stamp(1, 0.0)["latency_ms"] is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_latency_is_a_duration(wrong: float) -> None:
    """A latency that is negative or not a number is refused."""
    with pytest.raises(ValueError, match="latency head"):
        Latency(decode=1, detect=1, backbone=1, head=wrong, total=3)


def test_unknown_stream_states_and_negative_counts_are_refused() -> None:
    """What asyncapi.yaml does not know is not put on the wire."""
    with pytest.raises(ValueError, match="unknown stream state"):
        StreamMessage(stream="cam", state="fine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown stream state"):
        StreamHealth(stream="cam", state="fine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dropped"):
        StreamHealth(stream="cam", state="live", dropped=-1)
    with pytest.raises(ValueError, match="threshold"):
        Identity(version="1", session="x", thresholds=(0.4, 1.6))


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    """Values that come straight out of an engine need no conversion by whoever publishes them."""
    message = verdict(
        face=np.int64(3), p_fake=np.float32(0.25), box=tuple(np.full(4, 0.5, np.float32)), fill=np.float64(1)
    )
    written = json.loads(encode(message.stamp(1, 0.0)))
    assert (written["face"], written["p_fake"], written["box"], written["fill"]) == (3, 0.25, [0.5] * 4, 1.0)


def test_a_message_is_one_compact_line_of_ascii() -> None:
    """Names from outside break neither the line nor the encoding, even those that are no valid Unicode."""
    name = 'a\n"b" é \u2028 \udcff'
    line = encode(StreamMessage(stream=name, state="live").stamp(1, 0.0))
    assert line.isascii()
    assert "\n" not in line
    assert ": " not in line
    assert json.loads(line)["stream"] == name


def test_no_message_says_nan() -> None:
    """JSON has no NaN; a message with one is an error, not something that half of the readers refuse."""
    with pytest.raises(ValueError, match="JSON"):
        encode(StreamMessage(stream="cam", state="live").stamp(1, math.nan))


def test_stamping_states_number_and_time() -> None:
    """The stamp is what the hub gives; the rest is the message's own."""
    message = verdict().stamp(41, 1735689600.12345)
    assert message == {
        "type": "verdict",
        "seq": 41,
        "time": 1735689600.123,
        "stream": "cam",
        "face": 1,
        "state": "fake",
        "p_fake": 0.93,
        "box": [0.4, 0.2, 0.15, 0.3],
        "fill": 1.0,
        "pts_s": 12.5,
        "captured": 1735689600.29,
        "latency_ms": LATENCY.to_dict(),
    }


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((16, 9, 32, 18), (0.1, 0.1, 0.2, 0.2)),
        ((-16, -9, 32, 18), (0.0, 0.0, 0.1, 0.1)),
        ((150, 80, 32, 18), (0.9375, 0.8889, 0.0625, 0.1111)),
        ((200, 100, 10, 10), (1.0, 1.0, 0.0, 0.0)),
    ],
)
def test_a_box_in_pixels_becomes_shares_of_the_picture(
    box: tuple[float, float, float, float], expected: tuple[float, ...]
) -> None:
    """A box is cut off at the edges, so that a face half out of the picture still makes a valid message."""
    relative = relative_box(box, 160, 90)
    assert relative == pytest.approx(expected, abs=1e-4)
    assert isinstance(verdict(box=relative), VerdictMessage)
