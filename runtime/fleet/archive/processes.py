"""Pool of worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.child_process import begin_child, start_connected
from runtime.errors import os_reason
from runtime.fleet.archive.pool import Ended, Event, Finished, Ready, Unusable
from runtime.fleet.archive.worker import ScanSetup, ScanWorker
from runtime.fleet.loaded_model import WorkerRefused

MAX_FAILED_STARTS = 3
JOIN_S = 2.0


class ProcessPool:
    """Worker processes; those that end are started again. They end with this process.

    Args:
        setup: What each worker needs.
        processes: Number of processes.
    """

    def __init__(self, setup: ScanSetup, processes: int) -> None:
        self._setup = setup
        self._processes = processes
        # Spawned, not forked: threads of FFmpeg and onnxruntime do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
        self._not_started: list[Unusable] = []
        self._lifeline, self._parent_end = self._context.Pipe(duplex=False)

    def __enter__(self) -> Self:
        for number in range(self._processes):
            self._start(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ends workers that are still busy with a file.
        self._parent_end.close()
        for worker in self._workers.values():
            worker.close()
        self._lifeline.close()

    @property
    def workers(self) -> int:
        """Number of processes that scan, wait or start, or whose failure to start is the next event."""
        return len(self._workers) + len(self._not_started)

    def assign(self, worker: int, path: Path) -> None:
        """Let a worker that waits scan a file."""
        # If it has just ended, its end is the next event.
        with suppress(OSError):
            self._workers[worker].pipe.send(path)

    def retire(self, worker: int) -> None:
        """Release a worker that waits."""
        self._workers.pop(worker).close()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what has happened, after at most the timeout."""
        if self._not_started:
            unusable, self._not_started = self._not_started, []
            return unusable
        pipes = {worker.pipe: number for number, worker in self._workers.items()}
        ready = connection.wait(list(pipes), timeout_s)
        return [self._receive(pipes[pipe]) for pipe in ready if isinstance(pipe, connection.Connection)]

    def _receive(self, number: int) -> Event:
        worker = self._workers[number]
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            return self._ended(number, worker)
        if isinstance(event, Ready):
            worker.ready = True
        elif isinstance(event, Unusable):
            self.retire(number)
        return event

    def _ended(self, number: int, worker: _Worker) -> Event:
        worker.close()
        failed_starts = 0 if worker.ready else worker.failed_starts + 1
        if failed_starts >= MAX_FAILED_STARTS:
            del self._workers[number]
            return Unusable(number, f"a worker process has ended {failed_starts} times while it started")
        del self._workers[number]
        self._start(number, failed_starts)
        return Ended(number)

    def _start(self, number: int, failed_starts: int = 0) -> None:
        try:
            process, pipe = start_connected(
                self._context, _work, self._lifeline, self._setup, number, name=f"scan worker {number}"
            )
        except OSError as error:
            reason = os_reason(error)
            self._not_started.append(
                Unusable(
                    number, f"a worker process cannot start: {reason}; give a smaller number with --jobs"
                )
            )
        else:
            self._workers[number] = _Worker(process, pipe, failed_starts)


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, process: SpawnProcess, pipe: connection.Connection, failed_starts: int) -> None:
        self.pipe = pipe
        self.failed_starts = failed_starts
        self.ready = False
        self._process = process

    def close(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join(JOIN_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _work(
    lifeline: connection.Connection, pipe: connection.Connection, setup: ScanSetup, number: int
) -> None:
    """Scan the files that come through a pipe; the program of the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    begin_child(lifeline)
    try:
        worker = ScanWorker(setup)
    except WorkerRefused as refusal:
        pipe.send(Unusable(number, refusal.reason))
        return
    pipe.send(Ready(number, worker.engine))
    while True:
        try:
            path: Path = pipe.recv()
        except EOFError:
            return
        pipe.send(Finished(number, worker.scan(path)))
