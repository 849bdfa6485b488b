"""Load of the head of a fleet: simulated cameras on real Ray actors, the real server, subscribers.

The actors make the messages of their cameras, one face each, instead of analysing frames. The cores are
those of the head's process: Ray's threads, exchanges, numbering, snapshot, metrics, delivery to subscribers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hardware.cpu_load import CpuLoad
from benchmarks.harness.benchmark_record import Figure, Output, OutputConfig, new_record, new_table, quantity
from benchmarks.harness.errors import HelperFailed, SettingInvalid
from benchmarks.helpers.server_thread import serve_in_thread
from benchmarks.helpers.subscribers import Subscribers
from runtime.config.sources import WatchedSource
from runtime.fleet.cameras.actors import CameraActor, CameraActors
from runtime.fleet.cameras.exchange import BATCH_S, Assignment, Batch, Order, Question
from runtime.fleet.cameras.head import FleetMonitor
from runtime.fleet.cameras.worker import FleetSetup
from runtime.fleet.cameras.workers import Answered, Slot, Started
from runtime.fleet.cluster import Cluster, Node, open_cluster
from runtime.messages import (
    BroadcastMessage,
    HelloMessage,
    Latency,
    StreamHealth,
    StreamMessage,
    Thresholds,
    VerdictMessage,
)
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.metrics import Metrics
from runtime.version import version
from streams.input.source import parse_source

WARMUP_S = 2.0
START_S = 120.0
# So small that any number of cameras has room.
NEED_CORES = 0.001
THRESHOLDS = Thresholds(real=0.3, fake=0.7)
LATENCY = Latency(decode=2.345, detect=8.765, crop=0.432, backbone=25.0, head=3.456, total=45.678)


class SimulatedActor(CameraActor):
    """Worker whose cameras send verdicts at the sample rate, without frames.

    Args:
        number: Number of the worker.
        setup: Its `cores_per_camera` is the verdict rate of a camera in hertz.
    """

    def __init__(self, number: int, setup: FleetSetup) -> None:
        super().__init__(number, setup)
        self._worker_number = number
        self._rate_hz = setup.cores_per_camera or 8.0
        self._order = Order(version=0, generation=0, cameras={})
        self._new: set[str] = set()
        self._sent = 0
        self._started = time.monotonic()

    def start(self) -> Started:
        """Start at once."""
        return Started(self._worker_number, "simulated", "none", NEED_CORES)

    def exchange(self, question: Question) -> Answered:
        """Return the messages that are due since the last exchange."""
        order = question.order
        if order is not None:
            self._new = set(order.cameras) - set(self._order.cameras)
            self._order = order
        time.sleep(BATCH_S)
        due = int((time.monotonic() - self._started) * self._rate_hz)
        messages: list[tuple[int, BroadcastMessage]] = []
        health = []
        for name, assignment in self._order.cameras.items():
            if name in self._new:
                messages.append((assignment.epoch, StreamMessage(stream=name, state="live")))
            verdicts = (_verdict(name, assignment, count) for count in range(self._sent, due))
            messages += ((assignment.epoch, verdict) for verdict in verdicts)
            health.append(StreamHealth(stream=name, state="live", analysed=due))
        self._sent, self._new = due, set()
        running = {name: assignment.epoch for name, assignment in self._order.cameras.items()}
        batch = Batch(
            version=self._order.version,
            generation=0,
            running=running,
            messages=tuple(messages),
            health=tuple(health),
        )
        return Answered(self._worker_number, batch)


def _verdict(name: str, assignment: Assignment, count: int) -> VerdictMessage:
    return VerdictMessage(
        stream=name,
        face=assignment.past_faces + 1,
        state="real",
        p_fake=0.123456,
        box=(0.4123, 0.2345, 0.1512, 0.3001),
        window_fill=1.0,
        pts_s=count / 8,
        captured=time.time(),
        latency_ms=LATENCY,
    )


@dataclass(frozen=True, kw_only=True)
class FleetBenchConfig(OutputConfig):
    """Settings of `unmask bench fleet`.

    Args:
        cameras: Numbers of simulated cameras, one run after the other.
        workers: Number of workers, each an actor.
        rate_hz: Verdicts per second and camera.
        subscribers: WebSocket clients of the head.
        seconds: Length of each measurement.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    cameras: Sequence[int] = (1, 50, 100, 200)
    workers: int = 4
    rate_hz: float = 8.0
    subscribers: int = 2
    seconds: float = 6.0


@dataclass(frozen=True, kw_only=True)
class HeadLoad:
    """Load of the head in one run.

    Args:
        messages_hz: Published messages per second.
        cores: Cores that the process of the head kept busy.
    """

    messages_hz: float
    cores: float


def run_fleet_benchmark(config: FleetBenchConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, not all could start, or a record cannot be written or read.
        ExtraMissing: Ray is not installed.
    """
    if not config.cameras or min(config.cameras) < 1:
        raise SettingInvalid("--cameras", ",".join(map(str, config.cameras)), "give numbers from 1 on")
    output = Output("fleet", config)
    table = new_table("cameras", ("messages/s", "of due", "head cores", "ms a message"))
    figures: dict[str, Figure] = {}
    with open_cluster("local", cpus=config.workers) as cluster:
        for cameras in config.cameras:
            load = measure_head(cluster, cameras, config)
            due_hz = cameras * config.rate_hz
            figures[f"{cameras}: messages"] = quantity([load.messages_hz], "messages/s")
            figures[f"{cameras}: head"] = quantity([load.cores], "cores")
            table.add_row(
                str(cameras),
                f"{load.messages_hz:.0f}",
                f"{load.messages_hz / due_hz:.1%}",
                f"{load.cores:.3f}",
                f"{1e3 * load.cores / max(load.messages_hz, 1e-9):.3f}",
            )
    record = new_record(
        "fleet",
        settings={
            "cameras": list(config.cameras),
            "workers": config.workers,
            "rate_hz": config.rate_hz,
            "subscribers": config.subscribers,
            "seconds": config.seconds,
        },
        figures=figures,
        warmup=f"{WARMUP_S:g} s a run",
        notes=["cameras are simulated: workers send messages without analysing frames"],
    )
    output.finish(record, table)
    return 0


def measure_head(cluster: Cluster, cameras: int, config: FleetBenchConfig) -> HeadLoad:
    """Run a fleet of simulated cameras and measure its head.

    Args:
        cluster: A local cluster.
        cameras: Number of cameras.
        config: Settings of the benchmark.

    Raises:
        HelperFailed: The cameras did not start.
    """
    hello = HelloMessage(version=version(), session=new_session(), thresholds=THRESHOLDS)
    broadcaster = Broadcaster(hello, sinks=[Metrics()])
    setup = FleetSetup(
        folder=Path.cwd(),
        model=None,
        digest="",
        version=version(),
        engine="onnxruntime",
        threads=None,
        cores_per_camera=config.rate_hz,
        thresholds=THRESHOLDS,
    )

    def slots(nodes: Sequence[Node], engine: str) -> list[Slot]:
        return [Slot(node.id, index, 1, gpu=False) for node in nodes for index in range(config.workers)]

    monitor = FleetMonitor(
        cluster,
        CameraActors(cluster, setup, SimulatedActor),
        [WatchedSource(source=parse_source("demo", name=f"camera-{number}")) for number in range(cameras)],
        engine="onnxruntime",
        thresholds={},
        publish=broadcaster.publish,
        slots=slots,
    )

    async def measure() -> HeadLoad:
        async with monitor:
            deadline = time.monotonic() + START_S
            while any(stream.state != "live" for stream in broadcaster.snapshot().streams):
                if time.monotonic() > deadline or monitor.failure is not None:
                    raise HelperFailed("simulated cameras", str(monitor.failure or "they did not start"))
                await asyncio.sleep(0.1)
            await asyncio.sleep(WARMUP_S)
            with CpuLoad() as load:
                before, started = broadcaster.seq, time.monotonic()
                await asyncio.sleep(config.seconds)
                rate_hz = (broadcaster.seq - before) / (time.monotonic() - started)
            return HeadLoad(messages_hz=rate_hz, cores=load.own_cores)

    with _subscribed(broadcaster, config.subscribers):
        return asyncio.run(measure())


@contextmanager
def _subscribed(broadcaster: Broadcaster, subscribers: int) -> Iterator[None]:
    with serve_in_thread(broadcaster, port=0) as server:
        if not subscribers:
            yield
            return
        with Subscribers(server.urls.websocket, fast=subscribers, slow=0, pause_s=1.0):
            yield
