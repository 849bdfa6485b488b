"""Workers of `unmask monitor --jobs` as processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from logging.handlers import QueueHandler
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import cast

from runtime.child_process import begin_child, start_connected
from runtime.fleet.cameras.exchange import Question
from runtime.fleet.cameras.worker import CameraWorker, FleetSetup
from runtime.fleet.cameras.workers import Answer, Answered, Lost, Slot, Started
from runtime.fleet.cluster import Node
from runtime.fleet.loaded_model import WorkerRefused

# A worker answers this time after its first message, which is shorter than on a cluster, where each exchange
# costs more; without a message after the longer time.
BATCH_S = 0.005
IDLE_S = 0.1
# Time that a killed process gets. One that hangs in the kernel must not keep the head from the others.
JOIN_S = 0.2
MAX_RECORDS = 1000


class ThisMachine:
    """This machine as the only node.

    Args:
        cores: CPU cores of all workers together.
    """

    ID = "this machine"
    advice = "a process that has ended starts again"

    def __init__(self, cores: int) -> None:
        self._node = Node(id=self.ID, host=self.ID, cpus=cores, gpus=0)

    def nodes(self) -> list[Node]:
        """Return this machine."""
        return [self._node]

    def check_now(self) -> None:
        """Do nothing: this machine is always there."""


def share_of(sources: int, jobs: int, index: int) -> int:
    """Return how many sources a process watches, so that all sources have a place and none is left over.

    Args:
        sources: Number of sources.
        jobs: Number of processes, at most that of the sources.
        index: Number of the process, from 0.
    """
    return sources // jobs + (index < sources % jobs)


class CameraProcesses:
    """Processes that watch cameras. They end with this one.

    Args:
        setup: What each worker needs, but for the cores that a camera needs.
        sources: Number of sources.
        jobs: Number of processes, at most that of the sources.
    """

    def __init__(self, setup: FleetSetup, *, sources: int, jobs: int) -> None:
        self._setup = setup
        self._sources = sources
        self._jobs = jobs
        # Spawned, not forked: threads of FFmpeg and onnxruntime do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._parent_end = self._context.Pipe(duplex=False)
        self._processes: dict[int, SpawnProcess] = {}
        # Pipes of the processes that have not ended.
        self._pipes: dict[int, connection.Connection] = {}
        self._not_started: list[Lost] = []
        self._number = 0

    def start(self, slot: Slot) -> int:
        """Start a worker, and return its number; `Started` or `Lost` follows.

        Args:
            slot: Its place.
        """
        self._number += 1
        share = share_of(self._sources, self._jobs, slot.index)
        setup = replace(self._setup, cores_per_camera=slot.cpus / share)
        try:
            process, pipe = start_connected(
                self._context,
                _work,
                self._lifeline,
                setup,
                self._number,
                name=f"camera worker {self._number}",
            )
        except OSError as error:
            self._not_started.append(Lost(self._number, str(error), "dead"))
        else:
            self._processes[self._number], self._pipes[self._number] = process, pipe
        return self._number

    def ask(self, worker: int, question: Question) -> None:
        """Ask a worker for what has happened; `Answered` or `Lost` follows."""
        # If it has just ended, `Lost` is the next answer, or was the last one.
        with suppress(OSError, KeyError):
            self._pipes[worker].send(question)

    def kill(self, worker: int) -> bool:
        """End a worker; nothing more comes from it. Return whether its process has ended for certain."""
        if worker in self._pipes:
            self._pipes.pop(worker).close()
        process = self._processes.pop(worker, None)
        if process is None:
            return True
        process.kill()
        process.join(JOIN_S)
        if process.exitcode is None:
            return False
        process.close()
        return True

    def answers(self, timeout_s: float) -> Sequence[Answer]:
        """Return the answers that have come, after at most the timeout."""
        if self._not_started:
            lost, self._not_started = self._not_started, []
            return lost
        workers = {pipe: worker for worker, pipe in self._pipes.items()}
        ready = connection.wait(list(workers), timeout_s) if workers else []
        return [self._receive(workers[cast(connection.Connection, pipe)]) for pipe in ready]

    def close(self) -> None:
        """End all workers."""
        self._parent_end.close()
        for worker in tuple(self._processes):
            self.kill(worker)
        self._lifeline.close()

    def _receive(self, worker: int) -> Answer:
        try:
            answer: Answer = self._pipes[worker].recv()
        except (EOFError, OSError):
            self._pipes.pop(worker).close()
            return Lost(worker, "its process has ended", "dead")
        return answer


class _Records(QueueHandler):
    """Log records of a worker, which its parent shows."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._kept: deque[logging.LogRecord] = deque(maxlen=MAX_RECORDS)

    def enqueue(self, record: logging.LogRecord) -> None:
        self._kept.append(record)

    def take(self) -> tuple[logging.LogRecord, ...]:
        return tuple(self._kept.popleft() for _ in range(len(self._kept)))


def _work(
    lifeline: connection.Connection, pipe: connection.Connection, setup: FleetSetup, number: int
) -> None:
    """Watch cameras as the head says; the program of the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    begin_child(lifeline)
    records = _Records()
    # The parent leaves out what it does not show.
    logging.basicConfig(level=logging.INFO, handlers=[records])
    try:
        worker = CameraWorker(setup)
    except WorkerRefused as refusal:
        pipe.send(Started(number, ThisMachine.ID, refusal=refusal.reason))
        return
    pipe.send(Started(number, ThisMachine.ID, worker.engine, worker.cores_per_camera))
    while True:
        try:
            question: Question = pipe.recv()
        except EOFError:
            return
        batch = worker.exchange(question, wait_s=BATCH_S, idle_s=IDLE_S)
        pipe.send(Answered(number, batch, records.take()))
