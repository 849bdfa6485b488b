"""Head of a fleet: asks the workers, publishes their messages under one number, and moves cameras.

It has the interface of `Monitor` that the command uses, so that clients see no difference.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from runtime.config.sources import WatchedSource
from runtime.errors import ClusterLost, NoWorkers
from runtime.fleet.cameras.actors import find_slots
from runtime.fleet.cameras.assignments import Assignments
from runtime.fleet.cameras.exchange import Assignment, Batch, Order, Question, sendable
from runtime.fleet.cameras.streams import StreamStates
from runtime.fleet.cameras.workers import Answer, Answered, Lost, Machines, Slot, Started, Workers
from runtime.fleet.cluster import Node
from runtime.messages import HEARTBEAT_S, BroadcastMessage, HeartbeatMessage, Thresholds
from runtime.serving.previews.demand import Formats
from runtime.serving.previews.publisher import PreviewPublisher
from streams.input.source import Source

logger = logging.getLogger(__name__)

POLL_S = 0.05
NODES_S = 1.0
ASK_AGAIN_S = 0.3
# Pause before a worker is started again on a machine on which one has just ended; doubled each time.
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
# Time after which a line says that a worker does not start.
PATIENCE_S = 45.0
STOP_S = 5.0
WAITING = "waits for a worker with room for it"
MOVING = "moves to another worker"
SILENT = "its worker does not answer"
ENDED = "its worker has ended; another one takes it over"


class FleetMonitor:
    """Cameras of a fleet.

    Args:
        machines: Where the workers run.
        workers: The workers.
        cameras: The cameras, in the order of the file.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        thresholds: Thresholds of the cameras that have their own, by name.
        publish: Function that sends a message; called on one thread.
        previews: Publisher of the frames of the workers; None to request none.
        on_change: Called from that thread when `settled`, `finished` or `failure` has changed.
        slots: Function that returns the places of workers.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        machines: Machines,
        workers: Workers,
        cameras: Sequence[WatchedSource],
        *,
        engine: str,
        thresholds: dict[str, Thresholds],
        publish: Callable[[BroadcastMessage], object],
        previews: PreviewPublisher | None = None,
        on_change: Callable[[], None] = lambda: None,
        slots: Callable[[Sequence[Node], str], list[Slot]] = find_slots,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        names = [camera.source.name for camera in cameras]
        self.sources: list[Source] = []
        """Sources that receive senders on this machine; a fleet has none."""
        self.settled = self.finished = self.all_failed = False
        self.failure: BaseException | None = None
        self._machines = machines
        self._workers = workers
        self._engine = engine
        self._find_slots = slots
        self._publish = publish
        self._previews = previews
        self._wanted: dict[str, Formats] = {}
        self._changes = 0
        self._on_change = on_change
        self._clock = clock
        # Cameras that have ended or failed, each with whether it has failed.
        self._finished: dict[str, bool] = {}
        self._cameras = {camera.source.name: sendable(camera) for camera in cameras}
        self._assignments = Assignments(names)
        self._streams = StreamStates(names, thresholds)
        self._places = _Places(clock)
        self._versions: dict[int, tuple[int, dict[str, int]]] = {}
        self._joined = False
        self._reported_waiting: tuple[int, int] | None = None
        self._refusals: list[str] = []
        # Living machines, and the time at which they were asked for.
        self._nodes: list[Node] = []
        self._nodes_at = clock()
        # Addresses of all machines so far: messages about one come after it has gone, too.
        self._hosts: dict[str, str] = {}
        self._refresh_nodes = threading.Event()
        self._ask_again: dict[int, float] = {}
        self._dead: dict[int, float] = {}
        self._stopping = threading.Event()
        self._started = self._beat_at = clock()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._node_watcher = threading.Thread(target=self._watch_nodes, name="fleet nodes", daemon=True)

    def node_of(self, name: str) -> str | None:
        """Return the id of the machine that watches a camera; None if it waits."""
        worker = self._assignments.cameras[name].worker
        slot = None if worker is None else self._places.slots.get(worker)
        return None if slot is None else slot.node

    async def __aenter__(self) -> Self:
        for message in self._streams.current():
            self._publish(message)
        self._node_watcher.start()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._refresh_nodes.set()
        await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._start_workers()
                answers = self._workers.answers(POLL_S)
                if not answers:
                    self._stopping.wait(POLL_S / 5)
                for answer in answers:
                    self._handle(answer)
                self._pass_time()
        except ClusterLost as lost:
            self._end(lost)
        except Exception as error:  # noqa: BLE001  raised by the main thread
            self._end(self._loss() or error)
        finally:
            self._workers.close()

    def _loss(self) -> ClusterLost | None:
        """Return the error that the cluster has stopped, which is the cause of whatever else has failed."""
        try:
            self._machines.check_now()
        except ClusterLost as lost:
            return lost
        return None

    def _end(self, error: BaseException) -> None:
        if not self._stopping.is_set():
            self.failure = error
            self._on_change()

    def _watch_nodes(self) -> None:
        # On a thread of its own: without an answer of the cluster this call waits for a minute.
        while not self._stopping.is_set():
            asked_at = self._clock()
            try:
                nodes = self._machines.nodes()
                self._hosts |= {node.id: node.host for node in nodes}
                self._nodes = nodes
                self._nodes_at = asked_at
            except Exception:
                logger.debug("no list of machines", exc_info=True)
            self._refresh_nodes.wait(NODES_S)
            self._refresh_nodes.clear()

    def _start_workers(self) -> None:
        slots = self._find_slots(self._nodes, self._engine)
        for slot in self._places.missing(slots):
            self._places.started(self._workers.start(slot), slot)
        for slot in self._places.late():
            logger.warning(
                "%s: no worker has started yet; do other programs use its %d CPUs?",
                self._host(slot),
                slot.cpus,
            )
        if self._nodes and not slots:
            raise NoWorkers(["no machine of the cluster has a CPU or GPU for the engine"])

    def _host(self, slot: Slot) -> str:
        return self._hosts.get(slot.node, slot.node)

    def _handle(self, answer: Answer) -> None:
        match answer:
            case Started():
                self._handle_started(answer)
            case Answered(worker, batch, records):
                for record in records:
                    log = logging.getLogger(record.name)
                    if log.isEnabledFor(record.levelno):
                        log.handle(record)
                self._handle_batch(worker, batch)
            case Lost():
                self._handle_lost(answer)

    def _handle_started(self, started: Started) -> None:
        slot = self._places.slots[started.worker]
        if started.refusal is not None:
            self._refusals.append(f"{started.host}: {started.refusal}")
            logger.error("%s", self._refusals[-1])
            self._places.refused(started.worker)
            self._workers.kill(started.worker)
            if not self._places.slots:
                raise NoWorkers(self._refusals)
            return
        self._places.ready(started.worker)
        self._assignments.join(started.worker, cores=slot.cpus, need=started.need, now=self._clock())
        worker = self._assignments.workers[started.worker]
        logger.info(
            "%s: worker %d, up to %d sources (cores: %d, %.2f for each), %s",
            started.host,
            started.worker,
            worker.room,
            slot.cpus,
            started.need,
            started.engine,
        )
        self._place()
        self._joined = True
        self._settle()
        self._ask(started.worker, generation=0, applied=0)

    def _handle_batch(self, worker: int, batch: Batch) -> None:
        if worker not in self._assignments.workers:
            return
        for name in self._assignments.answered(worker, batch.running, self._clock()):
            self._publish_all(self._streams.recovered(name))
        current = {
            name
            for name, epoch in batch.running.items()
            if (camera := self._assignments.cameras[name]).worker == worker and camera.epoch == epoch
        }
        for health in batch.health:
            if health.stream in current:
                self._streams.counted(health)
        for epoch, message in batch.messages:
            stream = getattr(message, "stream", "")
            if self._assignments.accepts(worker, stream, epoch):
                self._publish_all(self._streams.received(message))
        if self._previews is not None:
            for preview in batch.previews:
                if preview.stream in current:
                    self._previews.receive(preview)
        for name, failed in batch.finished.items():
            if name in current:
                self._finished[name] = failed
                self._assignments.finish(name)
        if batch.failure is not None:
            logger.error("worker %d: %s", worker, batch.failure)
            self._end_worker(worker, certain=False)
            return
        self._place()
        self._ask(worker, generation=batch.generation, applied=batch.version)

    def _handle_lost(self, lost: Lost) -> None:
        host = self._host(self._places.slots[lost.worker])
        logger.debug("worker %d: %s", lost.worker, lost.reason)
        if lost.worker not in self._assignments.workers:
            logger.warning("%s: worker %d has ended while it started: %s", host, lost.worker, lost.reason)
            self._end_worker(lost.worker, certain=True)
        elif lost.cause == "unavailable":
            # The connection has failed, or the process has ended and Ray does not know it yet.
            self._set_offline(self._assignments.silenced(lost.worker), SILENT)
            self._ask_again[lost.worker] = self._clock() + ASK_AGAIN_S
        elif lost.cause == "dead":
            logger.warning("%s: worker %d has ended", host, lost.worker)
            self._set_offline(self._assignments.ended(lost.worker, certain=False), ENDED)
            self._dead[lost.worker] = self._clock()
            self._refresh_nodes.set()
        else:
            logger.error("%s: worker %d has failed: %s", host, lost.worker, lost.reason)
            self._end_worker(lost.worker, certain=False)

    def _follow_up(self, now: float) -> None:
        """Ask silent workers again, and give away the cameras of those whose process has certainly ended."""
        for worker in [worker for worker, due in self._ask_again.items() if due <= now]:
            del self._ask_again[worker]
            if worker in self._assignments.workers:
                self._workers.ask(worker, Question())
        for worker, since in tuple(self._dead.items()):
            if worker not in self._assignments.workers:
                del self._dead[worker]
            elif self._nodes_at > since:
                # A machine that is alive has seen its process end. On one that has gone, it may still run.
                del self._dead[worker]
                slot = self._places.slots[worker]
                if any(node.id == slot.node for node in self._nodes):
                    self._end_worker(worker, certain=True)

    def _end_worker(self, worker: int, *, certain: bool) -> None:
        """Remove a worker; its cameras stay with it for a while unless its process has certainly ended."""
        certain = self._workers.kill(worker) or certain
        self._places.ended(worker)
        self._versions.pop(worker, None)
        if worker in self._assignments.workers:
            self._set_offline(self._assignments.ended(worker, certain=certain), ENDED)
            self._place()

    def _pass_time(self) -> None:
        now = self._clock()
        if self._previews is not None and self._previews.changes != self._changes:
            self._changes = self._previews.changes
            self._wanted = self._previews.wanted(self._cameras)
        self._follow_up(now)
        changes = self._assignments.tick(now)
        self._set_offline(changes.offline, SILENT)
        for worker in changes.released:
            self._versions.pop(worker, None)
            if worker in self._places.slots:
                logger.warning("worker %d does not answer; its cameras wait for another", worker)
                self._places.ended(worker)
                self._workers.kill(worker)
        if changes.released:
            self._place()
        if self._joined and self._assignments.settled:
            self._joined = False
            self._set_offline(self._assignments.balance(), MOVING)
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            self._publish(HeartbeatMessage(uptime_s=now - self._started, streams=self._streams.health()))
        if not self.finished and self._cameras and len(self._finished) == len(self._cameras):
            self.all_failed = all(self._finished.values())
            self.finished = True
            self._on_change()

    def _place(self) -> None:
        """Place waiting cameras; one line says how many still wait, if that has changed."""
        for name in self._assignments.place():
            if self._assignments.cameras[name].epoch > 1:
                self._streams.left(name)
        waiting = self._assignments.waiting
        if not waiting:
            self._reported_waiting = None
            return
        if self._places.starting:
            return
        self._set_offline(waiting, WAITING)
        report = (len(waiting), self._assignments.room)
        if report != self._reported_waiting:
            self._reported_waiting = report
            room = self._assignments.room
            logger.warning(
                "%d of %d cameras wait: %s",
                len(waiting),
                len(self._cameras),
                f"the workers have room for {room}; {self._machines.advice}" if room else "no worker runs",
            )

    def _ask(self, worker: int, *, generation: int, applied: int) -> None:
        """Ask a worker, with its order if it does not follow the present one."""
        wanted = self._assignments.assigned(worker)
        version, sent = self._versions.get(worker, (0, {}))
        if wanted != sent or not version:
            version += 1
            self._versions[worker] = version, wanted
        order = None
        if applied != version:
            cameras = {
                name: Assignment(
                    epoch=epoch, camera=self._cameras[name], past_faces=self._streams.max_face(name)
                )
                for name, epoch in wanted.items()
            }
            order = Order(version=version, generation=generation, cameras=cameras)
        previews = {name: self._wanted[name] for name in wanted if name in self._wanted}
        self._workers.ask(worker, Question(order=order, previews=previews))

    def _set_offline(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self._publish_all(self._streams.offline(name, reason))

    def _publish_all(self, messages: Sequence[BroadcastMessage]) -> None:
        for message in messages:
            self._publish(message)

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._on_change()


class _Places:
    """Which slot has a worker, and when it may get another one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.slots: dict[int, Slot] = {}
        self._clock = clock
        self._starting: dict[int, float] = {}
        self._late: set[int] = set()
        self._refused: set[Slot] = set()
        self._pauses: dict[Slot, tuple[float, float]] = {}

    @property
    def starting(self) -> bool:
        """Whether a worker is starting that will soon be ready."""
        return any(worker not in self._late for worker in self._starting)

    def missing(self, slots: Sequence[Slot]) -> list[Slot]:
        """Return the slots that should get a worker now."""
        taken, now = {*self.slots.values(), *self._refused}, self._clock()
        return [slot for slot in slots if slot not in taken and self._pauses.get(slot, (0.0, 0.0))[0] <= now]

    def late(self) -> list[Slot]:
        """Return the slots whose worker has not started in time; each once."""
        now = self._clock()
        late = {worker for worker, since in self._starting.items() if now - since > PATIENCE_S} - self._late
        self._late |= late
        return [self.slots[worker] for worker in late]

    def started(self, worker: int, slot: Slot) -> None:
        self.slots[worker] = slot
        self._starting[worker] = self._clock()

    def ready(self, worker: int) -> None:
        self._starting.pop(worker)

    def refused(self, worker: int) -> None:
        self._refused.add(self.slots.pop(worker))
        self._starting.pop(worker)

    def ended(self, worker: int) -> None:
        slot, now = self.slots.pop(worker), self._clock()
        self._starting.pop(worker, None)
        ended_at, pause = self._pauses.get(slot, (0.0, 0.0))
        again = now - ended_at < MAX_PAUSE_S
        pause = min(MAX_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause if again else 0.0))
        self._pauses[slot] = now + pause, pause
