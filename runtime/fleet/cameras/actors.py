"""Workers of a fleet as Ray actors: one for every two CPUs of a machine, or one for each of its GPUs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runtime.engines.factory import CPU_ENGINES
from runtime.errors import ClusterLost
from runtime.fleet.cameras.exchange import Question
from runtime.fleet.cameras.worker import CameraWorker, FleetSetup
from runtime.fleet.cameras.workers import Answer, Answered, Lost, Slot, Started
from runtime.fleet.cluster import Cluster, Node, own_host, set_niceness
from runtime.fleet.loaded_model import WorkerRefused

logger = logging.getLogger(__name__)

WORKER_CPUS = 2


def _setup_at(slot: Slot, setup: FleetSetup) -> FleetSetup:
    """Return what a worker needs at a place."""
    if slot.gpu:
        return replace(setup, threads=None)
    return replace(setup, threads=slot.cpus, gpu=False)


def find_slots(nodes: Sequence[Node], engine: str) -> list[Slot]:
    """Return the places of workers on a cluster.

    A machine without a GPU has one for every two CPUs: threads of one Python process use hardly more.

    Args:
        nodes: Its machines; those without a CPU have no place.
        engine: As for `open_engine`; with `tensorrt` a machine needs a GPU.
    """
    slots = []
    for node in nodes:
        gpus = 0 if engine in CPU_ENGINES else min(node.gpus, node.cpus)
        if gpus:
            slots += [Slot(node.id, index, node.cpus // gpus, gpu=True) for index in range(gpus)]
        elif engine != "tensorrt":
            count = -(-node.cpus // WORKER_CPUS)
            for index in range(count):
                cpus = node.cpus // count + (index < node.cpus % count)
                slots.append(Slot(node.id, index, cpus, gpu=False))
    return slots


class CameraActor:
    """Worker in an actor.

    Args:
        number: Number of the worker.
        setup: What it needs.
    """

    def __init__(self, number: int, setup: FleetSetup) -> None:
        set_niceness(setup.niceness)
        self._number = number
        self._setup = setup
        self._worker: CameraWorker | None = None

    def start(self) -> Started:
        """Load the model and the engine, and measure what a camera needs."""
        host = own_host()
        try:
            self._worker = CameraWorker(self._setup)
        except WorkerRefused as refusal:
            return Started(self._number, host, refusal=refusal.reason)
        return Started(self._number, host, self._worker.engine, self._worker.cores_per_camera)

    def exchange(self, question: Question) -> Answered:
        """Follow an order and return what has happened since the last exchange."""
        assert self._worker is not None
        return Answered(self._number, self._worker.exchange(question))


class CameraActors:
    """Actors of a fleet. None is started again by Ray: the head decides where its cameras go.

    Args:
        cluster: The cluster.
        setup: What each worker needs.
        kind: Class of the actors.
    """

    def __init__(self, cluster: Cluster, setup: FleetSetup, kind: type[CameraActor] | None = None) -> None:
        self._kind = kind or CameraActor
        self._cluster = cluster
        self._ray = cluster.ray
        self._setup = setup
        self._handles: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._number = 0

    def start(self, slot: Slot) -> int:
        """Start a worker, and return its number; `Started` or `Lost` follows.

        Args:
            slot: Its place.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._cluster.check_now()
        self._number += 1
        actor_class = self._ray.remote(
            num_cpus=slot.cpus,
            num_gpus=1 if slot.gpu else 0,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=slot.node, soft=False),
        )(self._kind)
        handle = self._handles[self._number] = actor_class.remote(self._number, _setup_at(slot, self._setup))
        self._calls[handle.start.remote()] = self._number
        return self._number

    def ask(self, worker: int, question: Question) -> None:
        """Ask a worker for what has happened; `Answered` or `Lost` follows."""
        self._calls[self._handles[worker].exchange.remote(question)] = worker

    def kill(self, worker: int) -> bool:
        """End a worker; nothing more comes from it. Return whether its process has ended: not known of Ray.

        Raises:
            ClusterLost: The cluster has stopped.
        """
        # Without a cluster this call, like every other, would wait for it for a minute.
        self._cluster.check_now()
        self._calls = {call: number for call, number in self._calls.items() if number != worker}
        self._ray.kill(self._handles.pop(worker))
        return False

    def answers(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come, after at most the timeout.

        Raises:
            ClusterLost: The cluster has stopped.
        """
        self._cluster.check()
        if not self._calls:
            return []
        calls = list(self._calls)
        done, _ = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
        if done and len(calls) > 1:
            # All that have come, not only the first.
            done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return [self._receive(call) for call in done]

    def _receive(self, call: Any) -> Answer:
        worker = self._calls.pop(call)
        try:
            answer: Answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._cluster.check_now()
            reason = str(error).strip().splitlines()[-1]
            if isinstance(error, self._ray.exceptions.ActorUnavailableError):
                return Lost(worker, reason, "unavailable")
            died = isinstance(error, self._ray.exceptions.ActorDiedError)
            return Lost(worker, reason, "dead" if died else "error")
        return answer

    def close(self) -> None:
        """End all workers."""
        with suppress(ClusterLost):
            for worker in tuple(self._handles):
                self.kill(worker)
