"""Options of all outputs beside the WebSocket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.outputs.evidence.events import EventLimits
from runtime.outputs.evidence.store import StoreLimits
from runtime.outputs.jsonl import Rotation
from runtime.outputs.mqtt import MqttOptions
from runtime.outputs.webhook import WebhookOptions


@dataclass(frozen=True, kw_only=True)
class EvidenceOptions:
    """Evidence of events.

    Args:
        folder: Folder of all events; of one program only.
        events: Extent of an event.
        store: Limits of the folder.
    """

    folder: Path
    events: EventLimits = EventLimits()  # noqa: RUF009  frozen
    store: StoreLimits = StoreLimits()  # noqa: RUF009  frozen


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Outputs of `unmask monitor`; all are off by default.

    Args:
        jsonl: Recording of all messages: a path, or `-` for standard output.
        rotation: Rotation of that recording.
        webhook: Receiver of changes of state.
        mqtt: Broker for states and changes.
        evidence: Evidence of faces that turn fake.
        annotate: Annotated video of the only source.
    """

    jsonl: str | None = None
    rotation: Rotation | None = None
    webhook: WebhookOptions | None = None
    mqtt: MqttOptions | None = None
    evidence: EvidenceOptions | None = None
    annotate: Path | None = None
