"""Writing of one event into a folder: crops, frame, verdicts, clip and manifest."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from runtime.outputs.annotated_video.overlay import draw_box
from runtime.outputs.evidence.events import Event, EventLimits
from runtime.outputs.evidence.frame_ring import encode_clip
from runtime.outputs.evidence.manifest import (
    MANIFEST,
    ClipFacts,
    EvidenceFile,
    Manifest,
    ModelFacts,
    file_sha256,
)
from streams.faces.colour import source_colorspace
from streams.input.clips.remux import clip_suffix, write_clip
from streams.input.frame import Frame
from streams.text import identifier

JPEG_QUALITY = 92


def write_event(
    draft: Path,
    event: Event,
    model: ModelFacts,
    limits: EventLimits,
    *,
    frames: Sequence[tuple[float, bytes]] = (),
) -> Manifest:
    """Write all files of an event into an empty folder, the manifest last, and synchronise them to the disk.

    Args:
        draft: The folder.
        event: The event, complete.
        model: Model and program.
        limits: Extent of the event, for the clip.
        frames: Scored frames of that time, for the clip of a source without compressed video.

    Returns:
        The manifest.

    Raises:
        OSError: A file cannot be written.
    """
    verdict = event.verdict
    written = _Files(draft)
    (draft / "crops").mkdir(mode=0o700)
    for number, (_, crop) in enumerate(event.crops):
        written.add(f"crops/{number:02}.png", _encode(".png", crop))
    frame = frame_rgb(event.frame)
    draw_box(frame, verdict.box, verdict.state)
    written.add("frame.jpg", _encode(".jpg", frame))
    written.add("trail.json", b"[\n" + b",\n".join(event.trail) + b"\n]\n")
    clip = _add_clip(written, event, limits, frames)
    moment = datetime.fromtimestamp(verdict.time, UTC)
    manifest = Manifest(
        id=f"{moment:%Y%m%dT%H%M%SZ}-{identifier(verdict.stream)}-{verdict.face}-{secrets.token_hex(2)}",
        kind=event.kind,
        stream=verdict.stream,
        face=verdict.face,
        time=verdict.time,
        utc=moment.isoformat(timespec="milliseconds"),
        verdict=msgspec.to_builtins(verdict),
        model=_with_thresholds(model, event.calibration),
        crop_times=tuple(round(time_s, 3) for time_s, _ in event.crops),
        clip=clip,
        files=tuple(written.files),
    )
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    _write(draft / MANIFEST, content)
    return msgspec.json.decode(content, type=Manifest)


def _with_thresholds(model: ModelFacts, calibration: Calibration | None) -> ModelFacts:
    """Return the facts with the thresholds of one stream, which may have its own."""
    if calibration is None:
        return model
    return msgspec.structs.replace(
        model,
        threshold_real=calibration.threshold_real,
        threshold_fake=calibration.threshold_fake,
        hysteresis=calibration.hysteresis,
    )


def frame_rgb(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame as RGB uint8 `(H, W, 3)`, converted with its own matrix and range."""
    image = frame.image.reformat(format="rgb24", src_colorspace=source_colorspace(frame.image), threads=1)
    # Contiguous, and a copy, because a frame that is RGB already would be drawn on.
    return np.array(image.to_ndarray(), np.uint8, order="C")


@dataclass
class _Files:
    """Files written so far."""

    folder: Path
    files: list[EvidenceFile] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> None:
        _write(self.folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self.files.append(EvidenceFile(name=name, bytes=len(content), sha256=digest))


def _add_clip(
    written: _Files, event: Event, limits: EventLimits, frames: Sequence[tuple[float, bytes]]
) -> ClipFacts:
    """Write the clip: the packets of the source, or else the scored frames."""
    pts_s, packets = event.frame.pts_s, event.packets
    encoded = packets is None or not packets.has_packets
    cut = None if packets is None else packets.cut(pts_s - limits.before_s, pts_s + limits.after_s)
    if cut is None and not (encoded and frames):
        missing = "the source has no video of that time that can be kept"
        return ClipFacts(
            missing=missing if encoded else "too many bytes since the last key frame to keep them"
        )
    path = written.folder / f"clip{'.mp4' if cut is None else clip_suffix(cut)}"
    try:
        clip = encode_clip(path, frames) if cut is None else write_clip(path, cut)
    except ValueError as error:
        path.unlink(missing_ok=True)
        return ClipFacts(missing=str(error))
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    entry = EvidenceFile(name=path.name, bytes=path.stat().st_size, sha256=file_sha256(path))
    written.files.append(entry)
    return ClipFacts(
        file=path.name,
        codec=clip.codec,
        encoded=encoded,
        seconds=round(clip.seconds, 3),
        event_s=round(pts_s - clip.start_s, 3),
    )


def _encode(suffix: str, rgb: NDArray[np.uint8]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    done, content = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"an image of the shape {rgb.shape} cannot be encoded as {suffix}")
    return content.tobytes()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
