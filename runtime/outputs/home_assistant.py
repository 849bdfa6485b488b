"""MQTT topics and payloads: the state of each stream, and its discovery by Home Assistant. No I/O.

Source: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from runtime.messages import StreamMessage, StreamState, VerdictMessage
from runtime.version import version
from streams.text import identifier

# The state of a stream is that of its most suspicious face.
SUSPICION = ("fake", "uncertain", "real", "warming")


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one running program.

    Args:
        root: Topic above all others, such as `unmask`.
    """

    root: str

    @property
    def status(self) -> str:
        """Topic of the availability: `online` or `offline`, retained."""
        return f"{self.root}/status"

    def state(self, stream: str) -> str:
        """Return the topic of the state of a stream, retained."""
        return f"{self.root}/{identifier(stream)}/state"

    def event(self, stream: str) -> str:
        """Return the topic of the changes of a stream and its faces."""
        return f"{self.root}/{identifier(stream)}/event"


def stream_state(stream: StreamMessage, verdicts: Sequence[VerdictMessage]) -> dict[str, Any]:
    """Return the state of a stream as a JSON object.

    Args:
        stream: Last message of the stream.
        verdicts: Last message of each of its faces whose verdict is valid.

    Returns:
        `stream`, `state` and `reason` of the stream; `verdict` and `p_fake` of its most suspicious face, None
        without a face or a score; `faces`, their number.
    """
    states = {verdict.state for verdict in verdicts}
    worst = next((state for state in SUSPICION if state in states), None)
    scores = [v.p_fake for v in verdicts if v.state == worst and v.p_fake is not None]
    return {
        "stream": stream.stream,
        "state": stream.state,
        "reason": stream.reason,
        "verdict": worst,
        "p_fake": round(max(scores), 4) if scores else None,
        "faces": len(verdicts),
    }


def discovery(topics: Topics, prefix: str, stream: str) -> Iterator[tuple[str, bytes]]:
    """Yield the retained messages by which Home Assistant finds the entities of a stream.

    Its entities are unavailable while the program does not run or the stream is not watched, because then no
    state means that the faces are real.

    Args:
        topics: Topics of the program.
        prefix: Topic that Home Assistant listens on.
        stream: Name of the stream.

    Yields:
        Topic and payload.
    """
    node, state = identifier(topics.root), topics.state(stream)
    device = {
        "identifiers": [f"unmask_{node}_{identifier(stream)}"],
        "name": f"unmask {stream}",
        "manufacturer": "unmask",
        "sw_version": version(),
    }
    running = {"topic": topics.status}
    watched = {
        "topic": state,
        "value_template": "{{ 'online' if value_json.state in ('live', 'no_face') else 'offline' }}",
    }
    for component, key, entity in _entities():
        name = f"{identifier(stream)}_{key}"
        payload = {
            **entity,
            "unique_id": f"unmask_{node}_{name}",
            "state_topic": state,
            "availability": [running] if key == "state" else [running, watched],
            "availability_mode": "all",
            "device": device,
            "origin": {"name": "unmask", "sw_version": version()},
        }
        yield f"{prefix}/{component}/{node}/{name}/config", json.dumps(payload).encode()


def _entities() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield component, key and own fields of the entities of a stream."""
    yield (
        "binary_sensor",
        "fake",
        {
            "name": "Deepfake",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.verdict == 'fake' else 'OFF' }}",
        },
    )
    yield (
        "sensor",
        "verdict",
        {
            "name": "Verdict",
            "device_class": "enum",
            "options": [*SUSPICION, "no_face"],
            "value_template": "{{ value_json.verdict or 'no_face' }}",
        },
    )
    yield (
        "sensor",
        "p_fake",
        {
            "name": "Probability of a fake",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "value_template": (
                "{{ (value_json.p_fake * 100) | round(1) if value_json.p_fake is not none else 'None' }}"
            ),
        },
    )
    yield (
        "sensor",
        "state",
        {
            "name": "Stream",
            "device_class": "enum",
            "entity_category": "diagnostic",
            "options": list(get_args(StreamState)),
            "value_template": "{{ value_json.state }}",
        },
    )
