"""Sample messages, and validation of messages against asyncapi.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from runtime.messages import HelloMessage, Latency, Message, Thresholds, VerdictMessage, encode
from runtime.serving.broadcaster import Broadcaster

ASYNCAPI = Path(__file__).parents[2] / "runtime" / "serving" / "web" / "asyncapi.yaml"
LATENCY = Latency(decode=2.0, detect=18.5, crop=1.0, backbone=31.25, head=4.0, total=85.0)
HELLO = HelloMessage(
    version="1.2.3",
    session="a run",
    model="small",
    engine="a CPU",
    thresholds=Thresholds(real=0.4, fake=0.6),
    hysteresis=0.03,
)


@cache
def asyncapi() -> dict[str, Any]:
    """Read asyncapi.yaml."""
    document: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
    return document


def validate(message: Message | Mapping[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless a message fits the schema of its type in asyncapi.yaml."""
    fields = message if isinstance(message, Mapping) else json.loads(encode(message))
    document = asyncapi()
    assert fields["type"] in document["components"]["messages"], fields
    # References in the schema are relative to the whole document.
    schema = {**document, "$ref": f"#/components/schemas/{fields['type']}"}
    jsonschema.Draft7Validator(schema).validate(dict(fields))


def verdict(**changes: Any) -> VerdictMessage:
    """Make a verdict: a fake face in the stream `cam`, with changes."""
    values: dict[str, Any] = {
        "stream": "cam",
        "face": 1,
        "state": "fake",
        "p_fake": 0.93,
        "box": (0.4, 0.2, 0.15, 0.3),
        "window_fill": 1.0,
        "pts_s": 12.5,
        "captured": 1735689600.29,
        "latency_ms": LATENCY,
    }
    if changes.get("state") in {"warming", "stale"}:
        values["p_fake"] = None
    return VerdictMessage(**{**values, **changes})


def make_broadcaster(**options: Any) -> Broadcaster:
    """Make a broadcaster with a known hello message."""
    return Broadcaster(HELLO, **options)
