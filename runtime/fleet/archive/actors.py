"""Pool of actors on a Ray cluster: one for each CPU, and one for each GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.engines.factory import CPU_ENGINES
from runtime.errors import ClusterLost
from runtime.fleet.archive.pool import Ended, Event, Finished, Ready, Unusable
from runtime.fleet.archive.worker import ScannedFile, ScanSetup, ScanWorker
from runtime.fleet.cluster import Cluster, Node, own_host, set_niceness
from runtime.fleet.loaded_model import WorkerRefused

logger = logging.getLogger(__name__)

# Time in which Ray starts an actor again, and the pause between questions whether it has.
RESTART_S = 60.0
RETRY_S = 0.5
# Longest time from the end of the actors of a cluster that stops to its own.
LOSS_S = 5.0
# Time between checks for machines that have joined the cluster.
GROW_S = 5.0
# Time without a worker after which a line says why.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Started:
    """Answer of an actor that has loaded the model, or cannot.

    Args:
        host: Address of its machine.
        engine: Description of its engine.
        refusal: Why it cannot scan; None if it can.
    """

    host: str
    engine: str = ""
    refusal: str | None = None


class ScanActor:
    """Scanner in an actor; its constructor cannot fail, so that Ray does not restart it for ever.

    Args:
        setup: What the scan needs.
    """

    def __init__(self, setup: ScanSetup) -> None:
        set_niceness(setup.niceness)
        self._setup = setup
        self._worker: ScanWorker | None = None

    def start(self) -> Started:
        """Load the model and the engine, unless they are loaded."""
        host = own_host()
        try:
            self._worker = self._worker or ScanWorker(self._setup)
        except WorkerRefused as refusal:
            return Started(host, refusal=refusal.reason)
        return Started(host, self._worker.engine)

    def scan(self, path: Path) -> ScannedFile:
        """Scan one file."""
        assert self._worker is not None
        return self._worker.scan(path)


@dataclass(frozen=True)
class ActorKind:
    """Resources of an actor.

    Args:
        gpu: Whether it has a GPU, else one CPU.
    """

    gpu: bool

    def setup(self, setup: ScanSetup) -> ScanSetup:
        """Return what such an actor needs."""
        if self.gpu:
            return replace(setup, threads=None)
        return replace(setup, threads=1, gpu=False)


def count_actors(nodes: Sequence[Node], engine: str) -> dict[ActorKind, int]:
    """Return how many actors of each kind a cluster holds.

    A GPU is used by one actor, which takes one CPU too. The other CPUs have an actor each, unless TensorRT
    was asked for.

    Args:
        nodes: Machines of the cluster.
        engine: As for `open_engine`.
    """
    gpus = 0 if engine in CPU_ENGINES else sum(min(node.gpus, node.cpus) for node in nodes)
    cpus = 0 if engine == "tensorrt" else sum(node.cpus for node in nodes) - gpus
    return {ActorKind(gpu=True): gpus, ActorKind(gpu=False): max(0, cpus)}


class ActorPool:
    """Actors that Ray places, supervises and starts again, elsewhere if their machine is gone.

    Args:
        cluster: The cluster.
        setup: What each actor needs.
        files: Number of files, beyond which no actor is needed.
    """

    def __init__(self, cluster: Cluster, setup: ScanSetup, files: int) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._setup = setup
        self._files = files
        self._actors: dict[int, _Actor] = {}
        self._started: dict[ActorKind, int] = {}
        self._calls: dict[Any, int] = {}
        self._retries: dict[int, float] = {}
        self._grown_at = self._ready_at = time.monotonic()

    def __enter__(self) -> Self:
        self._grow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ClusterLost):
            for number in tuple(self._actors):
                self.retire(number)

    @property
    def workers(self) -> int:
        """Number of actors that scan, wait or start."""
        return len(self._actors)

    def assign(self, worker: int, path: Path) -> None:
        """Let an actor that waits scan a file."""
        actor = self._actors[worker]
        self._calls[actor.handle.scan.remote(path)] = worker

    def retire(self, worker: int) -> None:
        """Release an actor."""
        # Without a cluster this call, like every other, would wait for it for a minute.
        self._cluster.check_now()
        self._ray.kill(self._actors.pop(worker).handle)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what has happened, after at most the timeout.

        Raises:
            ClusterLost: The cluster has stopped.
        """
        self._cluster.check()
        now = time.monotonic()
        if now - self._grown_at > GROW_S:
            self._grown_at = now
            self._grow()
        if now - self._ready_at > PATIENCE_S and not any(actor.ready for actor in self._actors.values()):
            self._ready_at = now
            logger.warning("no worker has started yet: all CPUs of the cluster are taken, or it is slow")
        self._retry(now)
        if not self._calls:
            time.sleep(timeout_s)
            return []
        done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        events = (self._receive(call) for call in done)
        return [event for event in events if event is not None]

    def _grow(self) -> None:
        """Start an actor for each CPU and GPU that has none; those that were given up count too."""
        self._cluster.check_now()
        wanted = count_actors(self._cluster.nodes(), self._setup.engine)
        for kind, count in wanted.items():
            for _ in range(self._started.get(kind, 0), count):
                if sum(self._started.values()) < self._files:
                    self._start(kind)

    def _start(self, kind: ActorKind) -> None:
        actor_class = self._ray.remote(
            num_cpus=1,
            num_gpus=1 if kind.gpu else 0,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(ScanActor)
        number = sum(self._started.values())
        self._started[kind] = self._started.get(kind, 0) + 1
        self._actors[number] = _Actor(actor_class.remote(kind.setup(self._setup)))
        self._call_start(number)

    def _call_start(self, number: int) -> None:
        self._calls[self._actors[number].handle.start.remote()] = number

    def _retry(self, now: float) -> None:
        for number in [number for number, due in self._retries.items() if due <= now]:
            del self._retries[number]
            if number in self._actors:
                self._call_start(number)

    def _receive(self, call: Any) -> Event | None:
        number = self._calls.pop(call)
        if number not in self._actors:
            return None  # given up
        actor = self._actors[number]
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._cluster.check_now()
            reason = str(error).strip().splitlines()[-1]
            logger.debug("actor %d: %s", number, reason)
            if not isinstance(error, self._ray.exceptions.ActorUnavailableError):
                self._await_loss()
            now = time.monotonic()
            if actor.failing_since is None:
                actor.ready, actor.failing_since = False, now
            elif not isinstance(error, self._ray.exceptions.ActorUnavailableError) or (
                now - actor.failing_since > RESTART_S
            ):
                self.retire(number)
                return Unusable(number, f"a worker cannot start: {reason}")
            # Calls fail at once while Ray starts it again, elsewhere if necessary.
            self._retries[number] = now + RETRY_S
            return Ended(number)
        if isinstance(answer, ScannedFile):
            return Finished(number, answer)
        assert isinstance(answer, Started)
        if answer.refusal is not None:
            self.retire(number)
            return Unusable(number, f"{answer.host}: {answer.refusal}")
        actor.ready, actor.failing_since = True, None
        return Ready(number, answer.engine)

    def _await_loss(self) -> None:
        """Wait whether the cluster stops: when it does, its actors end before it."""
        deadline = time.monotonic() + LOSS_S
        while time.monotonic() < deadline:
            self._cluster.check_now()
            time.sleep(RETRY_S / 5)


@dataclass
class _Actor:
    """An actor, whether it has loaded the model, and since when calls fail; None if they do not."""

    handle: Any
    ready: bool = False
    failing_since: float | None = None
