"""Interface of a pool of workers, and its events.

Each worker has one file at a time, so that the number of files under way does not depend on the archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from runtime.fleet.archive.worker import ScannedFile


@dataclass(frozen=True)
class Ready:
    """A worker that can take its first file.

    Args:
        worker: Number of the worker.
        engine: Description of its engine.
    """

    worker: int
    engine: str


@dataclass(frozen=True)
class Finished:
    """A file that a worker has scanned; the worker can take another one.

    Args:
        worker: Number of the worker.
        scanned: The outcome.
    """

    worker: int
    scanned: ScannedFile


@dataclass(frozen=True)
class Ended:
    """A worker whose process has ended with its file; `Ready` follows if it starts again.

    Args:
        worker: Number of the worker.
    """

    worker: int


@dataclass(frozen=True)
class Unusable:
    """A worker that is given up.

    Args:
        worker: Number of the worker.
        reason: Cause and advice in one line.
    """

    worker: int
    reason: str


Event: TypeAlias = Ready | Finished | Ended | Unusable


class WorkerPool(Protocol):
    """Workers that start, scan files, and start again after their process has ended."""

    @property
    def workers(self) -> int:
        """Number of workers that scan, wait or start."""

    def assign(self, worker: int, path: Path) -> None:
        """Let a worker that waits scan a file; returns at once."""

    def retire(self, worker: int) -> None:
        """Release a worker that waits."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what has happened, after at most the timeout."""
