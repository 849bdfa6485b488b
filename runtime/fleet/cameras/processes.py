"""Workers of `unmask monitor --jobs` as processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.context import SpawnProcess

from runtime.child_process import begin_child
from runtime.fleet.cameras.exchange import Question
from runtime.fleet.cameras.worker import CameraWorker, FleetSetup
from runtime.fleet.cameras.workers import Answer, Answered, Lost, Slot, Started
from runtime.fleet.cluster import Node
from runtime.fleet.loaded_model import WorkerRefused

# Shorter than on a cluster, where each exchange costs more: verdicts wait for half of it on average.
BATCH_S = 0.02
JOIN_S = 2.0


class ThisMachine:
    """The only machine of workers that are processes.

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


class CameraProcesses:
    """Processes that watch cameras. They end with this one.

    Args:
        setup: What each worker needs.
    """

    def __init__(self, setup: FleetSetup) -> None:
        self._setup = setup
        # Spawned, not forked: threads of FFmpeg and onnxruntime do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._parent_end = self._context.Pipe(duplex=False)
        self._processes: dict[int, SpawnProcess] = {}
        # Pipes of the processes that have not ended.
        self._pipes: dict[int, connection.Connection] = {}
        self._number = 0

    def start(self, slot: Slot) -> int:
        """Start a worker, and return its number; `Started` or `Lost` follows.

        Args:
            slot: Its place, which makes no difference here.
        """
        self._number += 1
        pipe, child_end = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(self._lifeline, child_end, self._setup, self._number),
            daemon=True,
            name=f"camera worker {self._number}",
        )
        process.start()
        child_end.close()
        self._processes[self._number], self._pipes[self._number] = process, pipe
        return self._number

    def ask(self, worker: int, question: Question) -> None:
        """Ask a worker for what has happened; `Answered` or `Lost` follows."""
        # If it has just ended, `Lost` is the next answer, or was the last one.
        with suppress(OSError, KeyError):
            self._pipes[worker].send(question)

    def kill(self, worker: int) -> None:
        """End a worker; nothing more comes from it."""
        if worker in self._pipes:
            self._pipes.pop(worker).close()
        process = self._processes.pop(worker)
        process.terminate()
        process.join(JOIN_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()

    def answers(self, timeout_s: float) -> Sequence[Answer]:
        """Return the answers that have come, after at most the timeout."""
        workers = {pipe: worker for worker, pipe in self._pipes.items()}
        ready = connection.wait(list(workers), timeout_s) if workers else []
        return [self._receive(workers[pipe]) for pipe in ready if isinstance(pipe, connection.Connection)]

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


def _work(
    lifeline: connection.Connection, pipe: connection.Connection, setup: FleetSetup, number: int
) -> None:
    """Watch cameras as the head says; the program of the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    begin_child(lifeline)
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
        pipe.send(Answered(number, worker.exchange(question, wait_s=BATCH_S)))
