"""Worker of a fleet: one monitor, whose cameras are those of the last order of the head."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec.structs import replace

from runtime.engines.cpu import Turns, usable_cores
from runtime.errors import UnmaskError
from runtime.fleet.cameras.exchange import BATCH_S, LEASE_S, Assignment, Batch, Order, Question
from runtime.fleet.cameras.measurement import measure_cores_per_camera
from runtime.fleet.loaded_model import ModelSetup, WorkerRefused, load_model
from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamHealth, Thresholds, VerdictMessage
from runtime.pipeline.monitor import AnalysisFactory, Monitor
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.demand import Formats
from runtime.serving.previews.encoder import PreviewEncoder

MAX_MESSAGES = 8192
CHECK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class FleetSetup(ModelSetup):
    """Settings of every worker of a fleet.

    Args:
        cores_per_camera: Cores that a camera needs; None to measure it.
        thresholds: Thresholds in `hello`; a stream with others publishes its own.
    """

    cores_per_camera: float | None
    thresholds: Thresholds


class CameraWorker:
    """Monitor of one process, which follows the orders of the head and stops when the head is silent.

    Args:
        setup: What the worker needs.
        clock: Monotonic seconds.

    Raises:
        WorkerRefused: The model or the engine cannot be used here, or another version is installed.
    """

    def __init__(self, setup: FleetSetup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._setup = setup
        self._clock = clock
        self._stack = ExitStack()
        model = load_model(setup, self._stack)
        try:
            self.cores_per_camera = setup.cores_per_camera or measure_cores_per_camera(
                model.bundle, model.engine, model.batcher, model.infer
            )
        except UnmaskError as error:
            raise WorkerRefused(str(error)) from error
        turns = Turns(setup.threads or usable_cores())
        self._analyses = AnalysisFactory(model.bundle, model.engine, model.batcher, model.infer, turns)
        self.engine = model.engine.describe()
        # Guards the assignments and the messages.
        self._lock = threading.RLock()
        self._assigned: dict[str, Assignment] = {}
        self._stopping: list[tuple[str, int, threading.Thread]] = []
        self._messages: deque[tuple[int, BroadcastMessage]] = deque(maxlen=MAX_MESSAGES)
        self._health: tuple[StreamHealth, ...] = ()
        # Newest encoded frame of each camera and width, and what the head wants of them.
        self._previews: dict[tuple[str, int], EncodedPreview] = {}
        self._wanted: Mapping[str, Formats] = {}
        self._encoder = self._stack.enter_context(PreviewEncoder(self._keep_preview))
        self._version = 0
        self._generation = 0
        self._asked_at = clock()
        self._closing = threading.Event()
        self._news = threading.Event()
        self._monitor = self._stack.enter_context(
            Monitor(
                sample_hz=model.bundle.sample_hz,
                publish=self._publish,
                on_frame=lambda scored: self._encoder.offer(scored.stream, scored.frame),
            )
        )
        self._watchdog = threading.Thread(target=self._watch_head, name="lease", daemon=True)
        self._watchdog.start()

    def exchange(self, question: Question, *, wait_s: float = BATCH_S, idle_s: float = 0.0) -> Batch:
        """Follow an order, collect messages for a short time and return them.

        Args:
            question: The question.
            wait_s: Time in seconds for which messages are collected.
            idle_s: Longest time in seconds before that to wait for a first message.
        """
        with self._lock:
            self._asked_at = self._clock()
            order = question.order
            if order is not None and order.generation == self._generation:
                self._follow(order)
            if question.previews != self._wanted:
                self._wanted = question.previews
                self._encoder.want(lambda stream: question.previews.get(stream, {}))
        self._news.wait(idle_s)
        self._news.clear()
        self._closing.wait(wait_s)
        with self._lock:
            self._asked_at = self._clock()
            self._stopping = [entry for entry in self._stopping if entry[2].is_alive()]
            running = {name: epoch for name, epoch, _ in self._stopping}
            running |= {name: assignment.epoch for name, assignment in self._assigned.items()}
            # Before the messages, so that those of a stream that has finished are among them.
            finished = self._monitor.finished_streams
            failure = self._monitor.failure
            # Others are appended meanwhile.
            messages = tuple(self._messages.popleft() for _ in range(len(self._messages)))
            previews = tuple(self._previews.pop(key) for key in tuple(self._previews))
            health = self._health
            return Batch(
                version=self._version,
                generation=self._generation,
                running=running,
                messages=messages,
                previews=tuple(preview for preview in previews if preview.stream in self._assigned),
                health=tuple(item for item in health if item.stream in self._assigned),
                finished={name: failed for name, failed in finished.items() if name in self._assigned},
                failure=None if failure is None else str(failure),
            )

    def close(self) -> None:
        """Stop all cameras and release the engine."""
        self._closing.set()
        self._news.set()
        self._watchdog.join()
        self._stack.close()

    def _follow(self, order: Order) -> None:
        self._version = order.version
        for name, assignment in tuple(self._assigned.items()):
            wanted = order.cameras.get(name)
            if wanted is None or wanted.epoch != assignment.epoch:
                self._stop(name)
        stopping = {name for name, _, thread in self._stopping if thread.is_alive()}
        for name, assignment in order.cameras.items():
            if name in stopping:
                # Not twice at the same time: the head sends an order again that was not followed.
                self._version = 0
            elif name not in self._assigned:
                self._start(name, assignment)

    def _start(self, name: str, assignment: Assignment) -> None:
        watched = assignment.camera
        self._assigned[name] = assignment
        thresholds = self._analyses.thresholds(watched)
        self._monitor.add(
            watched.source,
            self._analyses.factory(watched),
            thresholds=None if thresholds == self._setup.thresholds else thresholds,
        )

    def _stop(self, name: str) -> None:
        # First, so that the message about its removal is not sent: the stream goes on elsewhere.
        assignment = self._assigned.pop(name)
        self._stopping.append((name, assignment.epoch, self._monitor.remove(name)))

    def _publish(self, message: BroadcastMessage) -> None:
        if isinstance(message, HeartbeatMessage):
            self._health = message.streams
            return
        # Not under the lock: a stream's thread publishes while the head's order waits for that stream.
        assignment = self._assigned.get(message.stream)
        if assignment is None:
            return
        if assignment.past_faces and isinstance(message, VerdictMessage):
            message = replace(message, face=message.face + assignment.past_faces)
        self._messages.append((assignment.epoch, message))
        self._news.set()

    def _keep_preview(self, preview: EncodedPreview) -> None:
        with self._lock:
            self._previews[preview.stream, preview.width] = preview

    def _watch_head(self) -> None:
        """Stop all cameras when the head has not asked for too long: it may give them to another worker."""
        while not self._closing.wait(CHECK_S):
            with self._lock:
                if self._assigned and self._clock() - self._asked_at > LEASE_S:
                    self._generation += 1
                    self._version = 0
                    for name in tuple(self._assigned):
                        self._stop(name)
                    self._messages.clear()
                    self._previews.clear()
