"""Folder of all events: what is in it, and which events are deleted to stay within its limits."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import EvidenceFailed, os_reason
from runtime.outputs.evidence.manifest import EVENT_ID, MANIFEST, Manifest, ManifestError, read_manifest

logger = logging.getLogger(__name__)

DRAFT_PREFIX = ".draft-"
# A draft of this age is not being written by another program any more.
DRAFT_AGE_S = 3600.0
DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """Limits of the folder; the oldest events beyond them are deleted.

    Args:
        max_gb: Size in gigabytes (10^9 bytes).
        max_days: Age in days.

    Raises:
        ValueError: A limit is not positive.
    """

    max_gb: float = 10.0
    max_days: float = 30.0

    def __post_init__(self) -> None:
        if not (self.max_gb > 0 and self.max_days > 0):
            raise ValueError("the limits of size and age of evidence must be above 0")


class EvidenceStore:
    """Events in a folder, newest last, kept in memory; safe for several threads.

    Only folders with the name and the manifest of an event are counted and deleted.

    Args:
        folder: Folder of all events; created, for the user alone, if it does not exist.
        limits: Limits of the folder.
        wall: Unix time in seconds.

    Raises:
        EvidenceFailed: The folder cannot be created, read or written.
    """

    def __init__(
        self, folder: Path, limits: StoreLimits | None = None, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self._limits = limits or StoreLimits()
        self._wall = wall
        self._lock = threading.Lock()
        self._events: dict[str, Manifest] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_old_drafts()
            self.new_draft().rmdir()
            names = sorted(path.name for path in folder.iterdir() if EVENT_ID.fullmatch(path.name))
        except OSError as error:
            raise EvidenceFailed(str(folder), error) from error
        for name in names:
            try:
                self._events[name] = read_manifest(folder / name)
            except ManifestError as error:
                logger.warning("%s: %s; it is left alone", folder / name, error)

    def events(self) -> list[Manifest]:
        """Return the manifests of all events, newest first."""
        with self._lock:
            return list(self._events.values())[::-1]

    def get(self, event_id: str) -> Manifest | None:
        """Return the manifest of an event; None if there is none."""
        with self._lock:
            return self._events.get(event_id)

    def file(self, event_id: str, name: str) -> Path | None:
        """Return the path of a file of an event; None unless it is the manifest or in it."""
        manifest = self.get(event_id)
        if manifest is None or name not in {MANIFEST, *(file.name for file in manifest.files)}:
            return None
        return self.folder / event_id / name

    def new_draft(self) -> Path:
        """Create a folder to write an event to, readable for the user alone.

        Raises:
            OSError: It cannot be created.
        """
        draft = self.folder / f"{DRAFT_PREFIX}{secrets.token_hex(6)}"
        draft.mkdir(mode=0o700)
        return draft

    def publish(self, draft: Path, manifest: Manifest) -> None:
        """Rename a complete draft to its final name, and make room.

        Raises:
            OSError: The draft cannot be renamed.
        """
        os.rename(draft, self.folder / manifest.id)
        _synchronise(self.folder)
        with self._lock:
            self._events[manifest.id] = manifest
        self.make_room()

    def make_room(self) -> None:
        """Delete the oldest events beyond the limits; the newest one is kept if it alone exceeds the size."""
        oldest = self._wall() - self._limits.max_days * DAY_S
        with self._lock:
            total = sum(manifest.total_bytes for manifest in self._events.values())
            surplus = []
            for name, manifest in list(self._events.items()):
                too_large = total > self._limits.max_gb * 1e9 and len(self._events) > 1
                if not too_large and manifest.time >= oldest:
                    break
                total -= manifest.total_bytes
                surplus.append(name)
                del self._events[name]
        for name in surplus:
            try:
                shutil.rmtree(self.folder / name)
            except FileNotFoundError:
                continue
            except OSError as error:
                logger.error("%s cannot be deleted: %s", self.folder / name, os_reason(error))

    def _remove_old_drafts(self) -> None:
        """Remove what an earlier run has left half written."""
        for path in self.folder.glob(f"{DRAFT_PREFIX}*"):
            if self._wall() - path.stat().st_mtime > DRAFT_AGE_S:
                shutil.rmtree(path, ignore_errors=True)


def _synchronise(folder: Path) -> None:
    """Write the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
