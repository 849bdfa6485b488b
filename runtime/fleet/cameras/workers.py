"""Workers as the head sees them: their places and answers, and the interface of what runs them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from runtime.fleet.cameras.exchange import Batch, Question
from runtime.fleet.cluster import Node


@dataclass(frozen=True)
class Slot:
    """Place of a worker.

    Args:
        node: Id of its machine.
        index: Number on that machine, from 0.
        cpus: CPUs that it may use.
        gpu: Whether it has a GPU.
    """

    node: str
    index: int
    cpus: int
    gpu: bool


@dataclass(frozen=True)
class Started:
    """Worker that has loaded the model and measured its need, or cannot.

    Args:
        worker: Number of the worker.
        host: Address of its machine.
        engine: Description of its engine.
        need: Cores that it needs for a camera.
        refusal: Why it cannot watch cameras; None if it can.
    """

    worker: int
    host: str
    engine: str = ""
    need: float = 1.0
    refusal: str | None = None


@dataclass(frozen=True)
class Answered:
    """Answer of a worker to an exchange.

    Args:
        worker: Number of the worker.
        batch: What has happened.
        records: Log records of its process that nobody has shown yet.
    """

    worker: int
    batch: Batch
    records: tuple[logging.LogRecord, ...] = ()


@dataclass(frozen=True)
class Lost:
    """Worker without an answer.

    Args:
        worker: Number of the worker.
        reason: Cause in one line.
        cause: `dead` if its process has ended, `unavailable` if it may answer again, `error` if it failed.
    """

    worker: int
    reason: str
    cause: Literal["dead", "unavailable", "error"]


Answer: TypeAlias = Started | Answered | Lost


class Machines(Protocol):
    """Machines on which workers run: a cluster, or this one alone."""

    advice: str
    """Advice if there is no room for all cameras."""

    def nodes(self) -> list[Node]:
        """Return the living machines.

        Raises:
            ClusterLost: The cluster has stopped.
        """

    def check_now(self) -> None:
        """Raise an error if the machines cannot be reached.

        Raises:
            ClusterLost: The cluster has stopped.
        """


class Workers(Protocol):
    """Workers that the head starts, asks and ends."""

    def start(self, slot: Slot) -> int:
        """Start a worker, and return its number; `Started` or `Lost` follows.

        Args:
            slot: Its place.
        """

    def ask(self, worker: int, question: Question) -> None:
        """Ask a worker for what has happened; `Answered` or `Lost` follows."""

    def kill(self, worker: int) -> bool:
        """End a worker; nothing more comes from it. Return whether its process has ended for certain.

        Raises:
            ClusterLost: The cluster has stopped.
        """

    def answers(self, timeout_s: float) -> Sequence[Answer]:
        """Return the answers that have come, after at most the timeout.

        Raises:
            ClusterLost: The cluster has stopped.
        """

    def close(self) -> None:
        """End all workers."""
