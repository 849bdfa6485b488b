"""Events for tests of the evidence, without a camera and an engine."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np

from runtime.messages import VerdictMessage, encode
from runtime.outputs.evidence.events import Event, EventLimits
from runtime.outputs.evidence.manifest import Manifest, ModelFacts
from runtime.outputs.evidence.store import EvidenceStore
from runtime.outputs.evidence.writer import write_event
from runtime.pipeline.stream_thread import ScoredFrame
from streams.input.frame import Frame
from tests.support.wire import verdict

MODEL = ModelFacts(
    name="small",
    sha256="0" * 64,
    engine="a CPU",
    threshold_real=0.4,
    threshold_fake=0.6,
    hysteresis=0.03,
    version="1.2.3",
    session="a run",
)
START = 1735689600.0


def make_frame(pts_s: float) -> Frame:
    """Make a grey frame."""
    image = av.VideoFrame.from_ndarray(np.full((90, 160, 3), 90, np.uint8), format="rgb24")
    return Frame(
        image=image,
        pts=round(pts_s * 90_000),
        time_base=Fraction(1, 90_000),
        captured=None,
        decode_ms=1.0,
        connection=1,
        segment=1,
    )


def scored_frame(pts_s: float, *verdicts: VerdictMessage, stream: str = "cam") -> ScoredFrame:
    """Make a scored frame with a crop for each verdict."""
    return ScoredFrame(
        stream=stream,
        frame=make_frame(pts_s),
        verdicts=verdicts,
        crops={verdict.face: np.full((16, 16, 3), 7, np.uint8) for verdict in verdicts},
    )


def keep_event(store: EvidenceStore, *, time: float = START, **changes: Any) -> Manifest:
    """Write an event into a store, as the recorder does."""
    message = verdict(**changes).stamp(1, time)
    event = Event(
        kind="fake",
        verdict=message,
        frame=make_frame(message.pts_s),
        crops=[(message.pts_s, np.full((16, 16, 3), 7, np.uint8))],
        packets=None,
        trail=[encode(message)],
    )
    draft = store.new_draft()
    manifest = write_event(draft, event, MODEL, EventLimits())
    store.publish(draft, manifest)
    return manifest


def write_damaged(folder: Path) -> Path:
    """Write a folder that looks like an event's but has no valid manifest."""
    damaged = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-cam-1-{secrets.token_hex(2)}"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes(msgspec.json.encode({"format": 1}))
    return damaged
