"""Messages are checked when they are made, and their JSON fits asyncapi.yaml."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import jsonschema
import msgspec
import numpy as np
import pytest

from runtime.client_messages import ClientMessage, PreviewRequest, parse_client_message
from runtime.messages import (
    PROTOCOL_VERSION,
    FaceState,
    HeartbeatMessage,
    HelloMessage,
    Latency,
    Message,
    PreviewHeader,
    SnapshotMessage,
    StreamHealth,
    StreamMessage,
    StreamState,
    Thresholds,
    VerdictMessage,
    encode,
    encode_preview,
    relative_box,
)
from tests.support.wire import HELLO, LATENCY, asyncapi, validate, verdict

# Keywords that say nothing about the accepted values.
ANNOTATIONS = {"title", "description", "default"}


def generated_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema that msgspec derives from each struct, by message type."""
    structs = (*get_args(Message), PreviewHeader, *get_args(ClientMessage))
    _, components = msgspec.json.schema_components(structs)
    return {
        struct.__struct_config__.tag: flatten(components[struct.__name__], components) for struct in structs
    }


def documented_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each message in asyncapi.yaml, by message type."""
    document = asyncapi()
    schemas = document["components"]["schemas"]
    return {name: flatten(schemas[name], schemas) for name in document["components"]["messages"]}


def flatten(schema: Any, components: dict[str, Any]) -> Any:
    """Normalise a schema: resolve references, remove annotations, write optional types as `anyOf`."""
    if isinstance(schema, list):
        return [flatten(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return flatten(components[schema["$ref"].rpartition("/")[2]], components)
    # Conditions between fields are tested one by one below.
    flat = {key: value for key, value in schema.items() if key not in ANNOTATIONS | {"allOf"}}
    if "properties" in flat:
        flat["properties"] = {name: flatten(part, components) for name, part in flat["properties"].items()}
        # Every field is always written, also those with a default.
        flat["required"] = sorted(flat["properties"])
        flat["additionalProperties"] = False
    if "prefixItems" in flat:
        # A box, whose numbers all have the same range.
        flat["items"], *others = flatten(flat.pop("prefixItems"), components)
        assert all(other == flat["items"] for other in others)
    elif "items" in flat:
        flat["items"] = flatten(flat["items"], components)
    if "const" in flat:
        flat["enum"] = [flat.pop("const")]
    if "enum" in flat:
        flat = {"enum": sorted(flat["enum"])}
    if "oneOf" in flat:
        flat["anyOf"] = flat.pop("oneOf")
    if isinstance(flat.get("type"), list):
        kind, null = flat.pop("type")
        flat = {"anyOf": [{"type": kind, **flat}, {"type": null}]}
    if "anyOf" in flat:
        flat["anyOf"] = sorted(flatten(flat["anyOf"], components), key=str)
    return flat


def test_asyncapi_describes_the_structs() -> None:
    """Types, ranges, choices and field names in asyncapi.yaml are those of the message structs."""
    generated, documented = generated_schemas(), documented_schemas()
    assert documented.keys() == generated.keys()
    for name, schema in documented.items():
        assert schema == generated[name], name


@pytest.mark.parametrize("state", get_args(FaceState))
def test_a_verdict_in_every_state_fits_asyncapi(state: str) -> None:
    """The JSON of a verdict is valid in every state of the face."""
    validate(verdict(state=state).stamp(3, 1735689600.375))


@pytest.mark.parametrize("state", get_args(StreamState))
def test_a_stream_message_in_every_state_fits_asyncapi(state: StreamState) -> None:
    """The JSON of a stream message is valid in every state, with and without a reason."""
    validate(StreamMessage(stream="cam", state=state))
    validate(StreamMessage(stream="cam", state=state, reason="because"))


def test_the_other_messages_fit_asyncapi() -> None:
    """The JSON of heartbeat, hello and snapshot is valid, with and without optional values."""
    health = StreamHealth(stream="cam", state="live", analysed=3, dropped=1, reconnects=2)
    validate(HeartbeatMessage(uptime_s=1.5))
    validate(HeartbeatMessage(uptime_s=1.5, streams=(health,)))
    validate(HELLO)
    validate(HelloMessage(version="1", session="x").stamp(7, 1.0))
    stream = StreamMessage(stream="cam", state="live").stamp(1, 0.0)
    validate(SnapshotMessage(seq=2, time=3.0, streams=(stream,), verdicts=(verdict().stamp(2, 0.0),)))
    assert json.loads(encode(HELLO))["protocol"] == PROTOCOL_VERSION


def test_asyncapi_lists_the_same_states() -> None:
    """The states in asyncapi.yaml are those of the code."""
    schemas = asyncapi()["components"]["schemas"]
    assert set(schemas["faceState"]["enum"]) == set(get_args(FaceState))
    assert set(schemas["streamState"]["enum"]) == set(get_args(StreamState))


@pytest.mark.parametrize("state", get_args(FaceState))
def test_asyncapi_ties_the_score_to_the_state(state: str) -> None:
    """A score in a state without one, or a missing score in a state with one, is invalid."""
    message = json.loads(encode(verdict(state=state)))
    message["p_fake"] = 0.5 if message["p_fake"] is None else None
    with pytest.raises(jsonschema.ValidationError):
        validate(message)


@pytest.mark.parametrize(
    "wrong",
    [{"more": 1}, {"state": "offline"}, {"box": [0.1, 0.1, 0.1]}, {"window_fill": 1.5}, {"seq": None}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_asyncapi_is_strict(wrong: dict[str, Any]) -> None:
    """Unknown fields and values of a wrong type or range are invalid."""
    with pytest.raises(jsonschema.ValidationError):
        validate({**json.loads(encode(verdict())), **wrong})


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
        {"window_fill": -0.1},
        {"face": -1},
        {"pts_s": math.inf},
        {"captured": math.nan},
        {"latency_ms": None},
    ],
    ids=str,
)
def test_an_invalid_verdict_cannot_be_made(wrong: dict[str, Any]) -> None:
    """Values out of range, non-finite numbers and contradictions raise an error that names the field."""
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        verdict(**wrong)


def test_a_stale_verdict_needs_no_latency() -> None:
    """No frame was analysed for a verdict that has expired."""
    assert verdict(state="stale", latency_ms=None).latency_ms is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_latency_is_a_duration(wrong: float) -> None:
    """A latency that is negative or not finite is refused."""
    with pytest.raises(ValueError, match=r"Latency: .*head"):
        Latency(decode=1, detect=1, crop=1, backbone=1, head=wrong, total=3)


def test_unknown_states_and_values_out_of_range_are_refused() -> None:
    """Each field is checked when a message is made."""
    with pytest.raises(ValueError, match=r"StreamMessage: Invalid enum value 'fine' - at `\$\.state`"):
        StreamMessage(stream="cam", state="fine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"StreamHealth: Invalid enum value 'fine' - at `\$\.state`"):
        StreamHealth(stream="cam", state="fine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"StreamHealth: Expected `int` >= 0 - at `\$\.dropped`"):
        StreamHealth(stream="cam", state="live", dropped=-1)
    with pytest.raises(ValueError, match=r"Thresholds: Expected `float` <= 1\.0 - at `\$\.fake`"):
        Thresholds(real=0.4, fake=1.6)


def test_numpy_numbers_become_numbers_in_json() -> None:
    """Values from an engine need no conversion by the caller."""
    message = verdict(
        face=np.int64(3),
        p_fake=np.float32(0.25),
        box=tuple(np.full(4, 0.5, np.float32)),
        window_fill=np.float64(1),
    )
    written = json.loads(encode(message))
    assert (written["face"], written["p_fake"], written["box"], written["window_fill"]) == (
        3,
        0.25,
        [0.5] * 4,
        1.0,
    )


def test_a_message_is_one_compact_line_of_ascii() -> None:
    """A stream name breaks neither the line nor the encoding, even if it is not valid Unicode."""
    name = 'a\n"b" é \u2028 \udcff'
    line = encode(StreamMessage(stream=name, state="live"))
    assert line.isascii()
    assert b"\n" not in line
    assert b": " not in line
    assert json.loads(line)["stream"] == name


def test_no_message_contains_nan() -> None:
    """JSON has no NaN, so a message with one cannot be made."""
    with pytest.raises(ValueError, match="the time nan"):
        StreamMessage(stream="cam", state="live").stamp(1, math.nan)


def test_the_json_of_a_verdict() -> None:
    """Number and time come from the stamp; numbers are rounded."""
    message = verdict(p_fake=0.93000049, box=(0.40004, 0.2, 0.15, 0.3)).stamp(41, 1735689600.12345)
    assert json.loads(encode(message)) == {
        "type": "verdict",
        "seq": 41,
        "time": 1735689600.123,
        "stream": "cam",
        "face": 1,
        "state": "fake",
        "p_fake": 0.93,
        "box": [0.4, 0.2, 0.15, 0.3],
        "window_fill": 1.0,
        "pts_s": 12.5,
        "captured": 1735689600.29,
        "latency_ms": msgspec.structs.asdict(LATENCY),
        "reason": None,
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
def test_a_box_in_pixels_becomes_shares_of_the_frame(
    box: tuple[float, float, float, float], expected: tuple[float, ...]
) -> None:
    """A box is clipped to the frame, so that a face partly outside still makes a valid message."""
    relative = relative_box(box, 160, 90)
    assert relative == pytest.approx(expected, abs=1e-4)
    assert isinstance(verdict(box=relative), VerdictMessage)


def test_only_an_uncertain_verdict_has_a_reason() -> None:
    """A reason says why the image does not allow a decision; a decision has none."""
    assert verdict(state="uncertain", p_fake=0.5, reason="no_motion").reason == "no_motion"
    with pytest.raises(ValueError, match="cannot have the reason 'no_motion'"):
        verdict(state="real", p_fake=0.1, reason="no_motion")


def test_a_frame_has_a_header_with_its_length() -> None:
    """The binary message is the length of the header, the header and the JPEG."""
    header = PreviewHeader(stream="cam \u00e9", pts_s=12.34567, captured=None, width=320, height=180)
    data = encode_preview(header, b"\xff\xd8 a JPEG")
    length = int.from_bytes(data[:4], "big")
    fields = json.loads(data[4 : 4 + length])
    validate(fields)
    # Rounded like the `pts_s` of verdicts, with which clients compare it.
    assert fields["pts_s"] == verdict(pts_s=12.34567).pts_s == 12.346
    assert data[4 + length :] == b"\xff\xd8 a JPEG"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello?",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"type":"verdict"}',
        b'{"type":"request_previews","width":-1}',
        b'{"type":"request_previews","width":"320"}',
        b'{"type":"request_previews","rate_hz":0}',
        b'{"type":"request_previews","rate_hz":NaN}',
        b'{"type":"request_previews","stream":"' + b"\xff" + b'"}',
        b"[" * 1000,
    ],
    ids=str,
)
def test_invalid_messages_of_clients_are_ignored(text: bytes) -> None:
    """Anything that is no request has no effect."""
    assert parse_client_message(text) is None


def test_a_request_for_frames_has_defaults() -> None:
    """Without fields it asks for small frames of all streams; unknown fields are ignored."""
    assert parse_client_message(b'{"type":"request_previews"}') == PreviewRequest(
        stream=None, width=320, rate_hz=4.0
    )
    request = parse_client_message(
        b'{"type":"request_previews","stream":"cam","width":960,"rate_hz":8,"x":1}'
    )
    assert request == PreviewRequest(stream="cam", width=960, rate_hz=8.0)
