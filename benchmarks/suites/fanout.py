"""Delivery time of messages: a real server, real clients in another process, some of them slow readers.

Each number of subscribers has two runs: with fast subscribers only, and with additional slow readers, which
read half of the published messages. The delivery to the fast ones must not change. Lost messages and
the age of messages at the slow readers are reported separately. Delivery time is from `Broadcaster.publish`
until the subscriber's process has read the bytes. Fast subscribers share one process, slow readers another.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware.cpu_load import CpuLoad
from benchmarks.harness.benchmark_record import (
    Figure,
    Output,
    OutputConfig,
    distribution,
    new_record,
    new_table,
    percentiles,
    quantity,
)
from benchmarks.harness.errors import SettingInvalid
from benchmarks.helpers.server_thread import serve_in_thread
from benchmarks.helpers.subscribers import Received, Subscribers
from runtime.messages import HEARTBEAT_S, HeartbeatMessage, HelloMessage, Latency, VerdictMessage
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.metrics import Metrics
from runtime.version import version

WARMUP_S = 1.0
# Before the measurement, a burst fills the buffers of kernel and server for the slow readers.
BURST = 400
BURST_S = 0.5
# Messages published in the time that a slow reader takes for one.
SLOWNESS = 2.0
# Time after which a missing message is lost; a slow reader first receives its buffered messages.
ARRIVAL_S = 1.0
BUFFERED = 220


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Messages of one run, published and received.

    Args:
        published: `seq` and time of each measured message, float64 `(M, 2)`, in order.
        received: Messages that the subscribers received.
        server_cores: Cores that the server's process kept busy, publishing included.
        client_cores: Cores that the fast subscribers together kept busy while they were connected.
    """

    published: NDArray[np.float64]
    received: Received
    server_cores: float
    client_cores: float

    def delays_ms(self, repeats: int, *, slow: bool = False) -> list[list[float]]:
        """Return the delivery time of each message to each subscriber.

        Args:
            repeats: Number of parts, by time of publishing.
            slow: Return the delays of the slow readers instead of the fast ones.

        Returns:
            Milliseconds, one list per part.
        """
        parts: list[list[float]] = []
        for part in np.array_split(self.published, repeats):
            delays = [
                1e3 * (arrivals[received, 1] - part[sent, 1])
                for arrivals in (self.received.slow if slow else self.received.fast)
                for received, sent in [_matching(arrivals[:, 0], part[:, 0])]
            ]
            parts.append(np.concatenate(delays).tolist() if delays else [])
        return parts

    def lost(self, *, slow: bool = False) -> float:
        """Return the share of the messages that did not reach their subscribers, 0..1."""
        readers = self.received.slow if slow else self.received.fast
        if not readers:
            return 0.0
        numbers = self.published[:, 0]
        arrived = sum(np.isin(numbers, arrivals[:, 0]).sum() for arrivals in readers)
        return float(1 - arrived / (len(numbers) * len(readers)))


def _matching(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the indices of the common numbers in both arrays."""
    _, in_first, in_second = np.intersect1d(first, second, return_indices=True)
    return in_first, in_second


@dataclass(frozen=True, kw_only=True)
class FanoutConfig(OutputConfig):
    """Settings of `unmask bench fanout`.

    Args:
        subscribers: Numbers of fast subscribers, one run after the other.
        slow: Number of slow readers in the second run of each; 0 leaves that run out.
        rate_hz: Verdicts per second and stream.
        streams: Number of streams with verdicts.
        seconds: Length of each measurement.
        repeats: Number of parts that a measurement is divided into, for the noise.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.
    """

    subscribers: Sequence[int] = (1, 10, 100)
    slow: int = 5
    rate_hz: float = 8.0
    streams: int = 4
    seconds: float = 6.0
    repeats: int = 3


def run_fanout(config: FanoutConfig) -> int:
    """Measure, print a table and write a record.

    Args:
        config: Settings of the benchmark.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, not all could join, or a record cannot be written or read.
    """
    if not config.subscribers or min(config.subscribers) < 1:
        numbers = ",".join(map(str, config.subscribers))
        raise SettingInvalid("--subscribers", numbers, "give numbers from 1 on")
    output = Output("fanout", config)
    columns = ("p50 ms", "p90 ms", "p99 ms", "max ms", "lost", "server cores", "clients' cores", "n")
    table = new_table("subscribers", columns)
    figures: dict[str, Figure] = {}
    for fast, slow in itertools.product(config.subscribers, dict.fromkeys((0, config.slow))):
        delivery = deliver(
            fast=fast, slow=slow, rate_hz=config.rate_hz, streams=config.streams, seconds=config.seconds
        )
        name = f"{fast} with {slow} slow readers" if slow else f"{fast}"
        delays = delivery.delays_ms(config.repeats)
        figures[f"{name}: delivery"] = distribution(delays, "ms")
        figures[f"{name}: server"] = quantity([delivery.server_cores], "cores")
        figures[f"{name}: lost"] = quantity([delivery.lost()], "share")
        table.add_row(name, *_cells(delays, delivery.lost(), delivery))
        slow_delays = delivery.delays_ms(config.repeats, slow=True)
        if any(slow_delays):
            figures[f"{name}: age at slow readers"] = distribution(slow_delays, "ms")
            figures[f"{name}: lost by slow readers"] = quantity([delivery.lost(slow=True)], "share")
            table.add_row(f"  {slow} slow readers", *_cells(slow_delays, delivery.lost(slow=True), None))
    record = new_record(
        "fanout",
        settings={
            "subscribers": list(config.subscribers),
            "slow": config.slow,
            "rate_hz": config.rate_hz,
            "streams": config.streams,
            "seconds": config.seconds,
            "repeats": config.repeats,
        },
        figures=figures,
        warmup=f"{WARMUP_S:g} s a run",
        notes=[f"a slow reader reads one message in the time in which {SLOWNESS:g} are published"]
        if config.slow
        else [],
    )
    output.finish(record, table)
    return 0


def _cells(delays: list[list[float]], lost: float, delivery: Delivery | None) -> list[str]:
    spread = percentiles(itertools.chain.from_iterable(delays))
    cores = ["", ""] if delivery is None else [f"{delivery.server_cores:.3f}", f"{delivery.client_cores:.3f}"]
    return [
        *(f"{spread[name]:.2f}" for name in ("p50", "p90", "p99", "max")),
        f"{lost:.1%}",
        *cores,
        str(sum(map(len, delays))),
    ]


def deliver(*, fast: int, slow: int, rate_hz: float, streams: int, seconds: float) -> Delivery:
    """Publish verdicts to subscribers and collect the received messages.

    Args:
        fast: Number of subscribers that read everything.
        slow: Number of slow readers.
        rate_hz: Verdicts per second and stream.
        streams: Number of streams with verdicts.
        seconds: Length of the measurement, after `WARMUP_S`.

    Returns:
        The messages.

    Raises:
        HelperFailed: Not all could join.
    """
    broadcaster = Broadcaster(HelloMessage(version=version(), session=new_session()), sinks=[Metrics()])
    pause_s = SLOWNESS / (rate_hz * streams)
    with ExitStack() as stack:
        url = stack.enter_context(serve_in_thread(broadcaster, port=0)).urls.websocket
        slow_readers = stack.enter_context(Subscribers(url, slow=slow, pause_s=pause_s)) if slow else None
        if slow:
            # Before the fast ones join: many of them could not keep up with the burst.
            _publish(broadcaster, rate_hz=BURST / BURST_S, streams=1, seconds=BURST_S)
        with _publishing(broadcaster, rate_hz=rate_hz, streams=streams):
            subscribers = stack.enter_context(Subscribers(url, fast=fast))
        joined = time.monotonic()
        _publish(broadcaster, rate_hz=rate_hz, streams=streams, seconds=WARMUP_S)
        with CpuLoad() as load:
            published = _publish(broadcaster, rate_hz=rate_hz, streams=streams, seconds=seconds)
        _idle(broadcaster, ARRIVAL_S)
        received = subscribers.collect()
        watched_s = time.monotonic() - joined
        if slow_readers is not None:
            _idle(broadcaster, BUFFERED * pause_s - ARRIVAL_S)
            received = replace(received, slow=slow_readers.collect().slow)
    return Delivery(
        published=np.array(published, np.float64),
        received=received,
        server_cores=load.own_cores,
        client_cores=received.cpu_s / watched_s,
    )


def _publish(
    broadcaster: Broadcaster, *, rate_hz: float, streams: int, seconds: float
) -> list[tuple[float, float]]:
    """Publish verdicts evenly in time; return `seq` and time of each."""
    published = []
    started = time.monotonic()
    for count in range(max(1, round(seconds * rate_hz * streams))):
        time.sleep(max(0.0, started + count / (rate_hz * streams) - time.monotonic()))
        message = _verdict(f"camera-{count % streams + 1}", count / (rate_hz * streams))
        now = time.monotonic()
        published.append((float(broadcaster.publish(message)), now))
    return published


@contextmanager
def _publishing(broadcaster: Broadcaster, *, rate_hz: float, streams: int) -> Iterator[None]:
    """Publish at a rate meanwhile, so that the buffers of slow readers stay full."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(1 / (rate_hz * streams)):
            broadcaster.publish(_verdict("camera-1", 0.0))

    thread = threading.Thread(target=publish, name="publishing")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _idle(broadcaster: Broadcaster, seconds: float) -> None:
    """Wait for messages to arrive, with the heartbeats that clients expect."""
    for _ in range(math.ceil(seconds / HEARTBEAT_S)):
        broadcaster.publish(HeartbeatMessage(uptime_s=broadcaster.uptime_s, streams=()))
        time.sleep(HEARTBEAT_S)


def _verdict(stream: str, pts_s: float) -> VerdictMessage:
    """Return a message of realistic length."""
    return VerdictMessage(
        stream=stream,
        face=1,
        state="real",
        p_fake=0.123456,
        box=(0.4123, 0.2345, 0.1512, 0.3001),
        window_fill=1.0,
        pts_s=pts_s,
        captured=time.time(),
        latency_ms=Latency(decode=2.345, detect=8.765, crop=0.432, backbone=25.0, head=3.456, total=45.678),
    )
