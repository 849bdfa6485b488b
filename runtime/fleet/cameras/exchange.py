"""Messages between the head and its workers.

The head asks each worker again and again; the worker answers after a short time with everything since its
last answer. A question without an answer is a lost contact for the head, and no further question for the
worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from runtime.config.sources import WatchedSource
from runtime.messages import BroadcastMessage, StreamHealth
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.demand import Formats

BATCH_S = 0.1
"""Time in seconds for which a worker collects messages."""
OFFLINE_S = 1.5
"""Silence of a worker after which the head reports its cameras as offline."""
LEASE_S = 2.0
"""Time in seconds without a question after which a worker stops its cameras."""
STOP_S = 1.5
"""Longest time in seconds that it takes a worker to stop its cameras."""
RELEASE_S = 2 * LEASE_S + BATCH_S + STOP_S
"""Silence of a worker after which it has certainly stopped its cameras.

A question on its way may have reached it just before its lease ended, and have extended the lease once.
"""


def sendable(watched: WatchedSource) -> WatchedSource:
    """Return a source in a form that can be sent to another process, with its secrets.

    Args:
        watched: A source that every machine can open.
    """
    # A read-only view of a dictionary cannot be sent.
    options = dict(watched.source.options)
    return replace(watched, source=replace(watched.source, options=options))


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One camera of a worker.

    Args:
        epoch: Number of the assignment of this camera; messages of an older one are dropped.
        camera: The camera.
        past_faces: Highest id of a face in the assignments before.
    """

    epoch: int
    camera: WatchedSource
    past_faces: int = 0


@dataclass(frozen=True, kw_only=True)
class Order:
    """All cameras that a worker shall watch.

    Args:
        version: Number of the order.
        generation: Generation of the worker that the order is for; one of an older generation is ignored.
        cameras: The assignments, by name.
    """

    version: int
    generation: int
    cameras: Mapping[str, Assignment]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Question of the head, which a worker answers with a `Batch`.

    Args:
        order: A new order; None to go on as before.
        previews: Formats in which frames of its cameras are wanted, by name.
    """

    order: Order | None = None
    previews: Mapping[str, Formats] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Answer of a worker.

    Args:
        version: Number of the order that it follows; 0 if it follows none.
        generation: Incremented each time the worker has stopped its cameras because the head was silent.
        running: Epoch of each camera that it watches, or has not stopped yet.
        messages: Messages with the epochs of their cameras, in order.
        health: Counters of its cameras.
        previews: Encoded frames of its cameras.
        finished: Cameras that have ended or failed, each with whether it has failed.
        failure: Why it cannot go on; None if it can.
    """

    version: int
    generation: int
    running: Mapping[str, int]
    messages: tuple[tuple[int, BroadcastMessage], ...] = ()
    health: tuple[StreamHealth, ...] = ()
    previews: tuple[EncodedPreview, ...] = ()
    finished: Mapping[str, bool] = field(default_factory=dict)
    failure: str | None = None
