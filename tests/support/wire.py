"""Sample messages, and the description that every message on the wire must fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from runtime.messages import Identity, Latency, VerdictMessage
from runtime.serving.broadcaster import Broadcaster

ASYNCAPI = Path(__file__).parents[2] / "runtime" / "serving" / "web" / "asyncapi.yaml"
LATENCY = Latency(decode=2.0, detect=18.5, backbone=31.25, head=4.0, total=85.0)
IDENTITY = Identity(version="1.2.3", session="a run", model="small", engine="a CPU", thresholds=(0.4, 0.6))


@cache
def description() -> dict[str, Any]:
    """Read asyncapi.yaml."""
    document: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
    return document


def validate(message: Mapping[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless a message is what asyncapi.yaml says of its type."""
    document = description()
    assert message["type"] in document["components"]["messages"], message
    # The references in it are relative to the whole document.
    schema = {**document, "$ref": f"#/components/schemas/{message['type']}"}
    jsonschema.Draft7Validator(schema).validate(dict(message))


def verdict(**changes: Any) -> VerdictMessage:
    """Make a verdict: a fake face in the stream `cam`, with changes."""
    values: dict[str, Any] = {
        "stream": "cam",
        "face": 1,
        "state": "fake",
        "p_fake": 0.93,
        "box": (0.4, 0.2, 0.15, 0.3),
        "fill": 1.0,
        "pts_s": 12.5,
        "captured": 1735689600.29,
        "latency_ms": LATENCY,
    }
    if changes.get("state") in {"warming", "stale"}:
        values["p_fake"] = None
    return VerdictMessage(**{**values, **changes})


def make_hub(**options: Any) -> Broadcaster:
    """Make a hub of a known identity."""
    return Broadcaster(IDENTITY, **options)
