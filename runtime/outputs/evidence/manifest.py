"""Manifest of an event's folder: facts about the event, and the SHA-256 of each file. Reading and checking.

The manifest is `manifest.json` in the folder. Its hashes show damage and careless changes; they do not
protect against someone who can write the manifest too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from runtime.errors import os_reason

MANIFEST = "manifest.json"
FORMAT: Final = 1
# Larger manifests are not read: nobody but this program writes them, and its own have a few kilobytes.
MAX_BYTES = 1_000_000

_NAME = r"(crops/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,60}"
EVENT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9_-]{1,80}")
"""Form of an event's id, which is the name of its folder."""


class EvidenceFile(msgspec.Struct, frozen=True, kw_only=True):
    """File of an event.

    Args:
        name: Path below the folder of the event.
        bytes: Size.
        sha256: SHA-256 in hexadecimal.
    """

    name: Annotated[str, Meta(pattern=f"^{_NAME}$")]
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Model and program that gave the verdict.

    Args:
        name: Name of the bundle.
        sha256: SHA-256 of its manifest, which contains those of its files.
        engine: Inference engine.
        threshold_real: Up to this `p_fake` a face is `real`.
        threshold_fake: From this `p_fake` a face is `fake`.
        hysteresis: Distance beyond a threshold at which a state is left.
        version: Version of unmask.
        session: Id of the run of the program.
    """

    name: str
    sha256: str
    engine: str
    threshold_real: float
    threshold_fake: float
    hysteresis: float
    version: str
    session: str


class ClipFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Clip of an event.

    Args:
        file: Name of the file; None if there is no clip.
        codec: FFmpeg's name of the codec.
        encoded: Whether the clip was encoded from the scored frames, because the source has no compressed
            video; otherwise it contains the packets of the source.
        seconds: Length in seconds.
        event_s: Time of the event in seconds since the beginning of the clip.
        missing: Why there is no clip.
    """

    file: str | None = None
    codec: str | None = None
    encoded: bool = False
    seconds: float = 0.0
    event_s: float = 0.0
    missing: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about one event.

    Args:
        format: Version of this format.
        id: Name of the folder.
        kind: `fake` for a face that turned fake, `control` for a random sample.
        stream: Name of the stream.
        face: Track id of the face.
        time: Time of the verdict in Unix seconds.
        utc: The same as text.
        verdict: The message with the verdict.
        model: Model and program.
        crop_times: Media time of each scored crop in seconds, in the order of the files.
        clip: The clip.
        files: All files but the manifest.
    """

    format: Literal[1] = FORMAT
    id: Annotated[str, Meta(pattern=f"^{EVENT_ID.pattern}$")]
    kind: Literal["fake", "control"]
    stream: str
    face: int
    time: float
    utc: str
    verdict: dict[str, Any]
    model: ModelFacts
    crop_times: tuple[float, ...]
    clip: ClipFacts
    files: tuple[EvidenceFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(file.bytes for file in self.files)


class ManifestError(ValueError):
    """A folder has no readable manifest; the message says why."""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an event's folder.

    Raises:
        ManifestError: It is missing or has another form, or the folder has another name than the event.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{MANIFEST} cannot be read: {os_reason(error)}") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{MANIFEST} is larger than {MAX_BYTES} bytes")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{MANIFEST} is not valid: {error}") from error
    if manifest.id != folder.resolve().name:
        raise ManifestError(f"{MANIFEST} belongs to another event, {manifest.id}")
    return manifest


def check_folder(folder: Path) -> Iterator[str]:
    """Compare an event's folder with its manifest.

    Yields:
        A description of each difference; nothing if there is none.
    """
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        yield str(error)
        return
    for entry in manifest.files:
        path = folder / entry.name
        try:
            if path.is_symlink() or not path.is_file():
                yield f"{entry.name} is missing or not a file"
            elif file_sha256(path) != entry.sha256:
                yield f"{entry.name} was changed: its SHA-256 is not that in the manifest"
        except OSError as error:
            yield f"{entry.name} cannot be read: {os_reason(error)}"
    known = {MANIFEST, *(entry.name for entry in manifest.files)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in known and not path.is_dir():
            yield f"{name} is not in the manifest"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
