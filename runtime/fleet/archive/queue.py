"""Files that wait for a worker, and the attempts at those whose worker has ended. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_ATTEMPTS = 3
"""Number of workers that a file may end before it is reported as failed."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to scan.

    Args:
        index: Position of the file in the order of the user, from 0.
        path: The file.
        attempts: Number of workers that have ended while they scanned it.
    """

    index: int
    path: Path
    attempts: int = 0


class FileQueue:
    """Files in the order of the user; those to be tried again come first.

    Args:
        files: The files; consumed only as workers take them.
        max_attempts: Number of workers that a file may end.
    """

    def __init__(self, files: Iterable[Path], *, max_attempts: int = MAX_ATTEMPTS) -> None:
        self._new: Iterator[tuple[int, Path]] = enumerate(files)
        self._again: deque[Task] = deque()
        self._held: deque[Task] = deque()
        self._max_attempts = max_attempts

    def next(self) -> Task | None:
        """Return the next file for a worker; None if none waits."""
        if self._again:
            return self._again.popleft()
        if not self._held:
            self._hold_next()
        return self._held.popleft() if self._held else None

    @property
    def empty(self) -> bool:
        """Whether no file waits."""
        if not self._again and not self._held:
            self._hold_next()
        return not self._again and not self._held

    def put_back(self, task: Task) -> None:
        """Let another worker have a file that its worker could not try."""
        self._again.append(task)

    def worker_ended(self, task: Task) -> int | None:
        """Handle the end of the worker that scanned a file.

        Args:
            task: The file.

        Returns:
            The number of attempts if the file has failed; None if it is tried again.
        """
        attempts = task.attempts + 1
        if attempts >= self._max_attempts:
            return attempts
        self._again.append(Task(index=task.index, path=task.path, attempts=attempts))
        return None

    def _hold_next(self) -> None:
        for index, path in self._new:
            self._held.append(Task(index=index, path=path))
            return
