"""Scan of an archive by a pool of workers: who gets which file, what is tried again, what has failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import NoWorkers
from runtime.fleet.archive.pool import Ended, Event, Finished, Ready, Unusable, WorkerPool
from runtime.fleet.archive.queue import FileQueue, Task
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.document import ScannedVideo
from streams.input.address import shown_path

POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ArchiveResult:
    """Result of one file.

    Args:
        index: Position of the file in the order of the user, from 0.
        result: The result.
        video: Result and timeline for the reports; None without reports, or for a file that has failed.
    """

    index: int
    result: ScanResult
    video: ScannedVideo | None = None


@dataclass(frozen=True, kw_only=True)
class ArchiveEvents:
    """Receivers of what happens during a scan.

    Args:
        on_result: Called with each result, in the order in which files are done.
        on_start: Called with each file that a worker begins.
        on_engine: Called with the description of the engine of each worker.
        on_problem: Called with one line about each worker that is given up.
    """

    on_result: Callable[[ArchiveResult], object]
    on_start: Callable[[Path], object] = lambda _: None
    on_engine: Callable[[str], object] = lambda _: None
    on_problem: Callable[[str], object] = lambda _: None


class ArchiveScan:
    """Decisions on the files and workers of one scan.

    Args:
        files: The files, consumed as workers take them.
        pool: The workers.
        receivers: Receivers of the results.
        exists: Function that returns whether this process can see a file.
    """

    def __init__(
        self,
        files: Iterable[Path],
        pool: WorkerPool,
        receivers: ArchiveEvents,
        *,
        exists: Callable[[Path], bool] = os.path.lexists,
    ) -> None:
        self._queue = FileQueue(files)
        self._pool = pool
        self._receivers = receivers
        self._exists = exists
        self._under_way: dict[int, Task] = {}
        self._waiting: list[int] = []
        self._problems: dict[str, None] = {}

    def run(self) -> None:
        """Scan all files.

        Raises:
            NoWorkers: No worker can go on.
        """
        while self._under_way or not self._queue.empty:
            if not self._pool.workers:
                raise NoWorkers(list(self._problems))
            for event in self._pool.events(POLL_S):
                self._handle(event)
            self._assign()

    def _assign(self) -> None:
        while self._waiting and (task := self._queue.next()) is not None:
            worker = self._waiting.pop(0)
            self._under_way[worker] = task
            self._receivers.on_start(task.path)
            self._pool.assign(worker, task.path)

    def _handle(self, event: Event) -> None:
        match event:
            case Ready(worker, engine):
                self._waiting.append(worker)
                self._receivers.on_engine(engine)
            case Finished(worker, scanned):
                task = self._under_way.pop(worker)
                if scanned.result is None:
                    self._give_up(worker, scanned.failure or "the engine failed")
                    self._worker_ended(task)
                elif scanned.missing and self._exists(task.path):
                    # Otherwise one machine without the shared storage would fail every file, and fastest.
                    self._give_up(
                        worker, f"{shown_path(task.path)}: this file is not visible there; mount it"
                    )
                    self._queue.put_back(task)
                else:
                    self._waiting.append(worker)
                    self._receivers.on_result(
                        ArchiveResult(index=task.index, result=scanned.result, video=scanned.video)
                    )
            case Ended(worker):
                self._forget(worker)
            case Unusable(worker, reason):
                self._note(reason)
                self._forget(worker)

    def _give_up(self, worker: int, reason: str) -> None:
        self._note(reason)
        self._pool.retire(worker)

    def _note(self, reason: str) -> None:
        if reason not in self._problems:
            self._problems[reason] = None
            self._receivers.on_problem(reason)

    def _forget(self, worker: int) -> None:
        if worker in self._waiting:
            self._waiting.remove(worker)
        task = self._under_way.pop(worker, None)
        if task is not None:
            self._worker_ended(task)

    def _worker_ended(self, task: Task) -> None:
        attempts = self._queue.worker_ended(task)
        if attempts is not None:
            shown = shown_path(task.path)
            error = (
                f"{shown}: {attempts} workers have ended while they scanned it; check the file and the memory"
            )
            result = ScanResult(file=shown, state="unreadable", error=error)
            self._receivers.on_result(ArchiveResult(index=task.index, result=result))
