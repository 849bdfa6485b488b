"""How fast a message reaches everyone: a real server, real clients in another process, some of them slow.

For each number of subscribers there are two runs: all of them fast, and again with slow readers beside them,
which read half of what is published. The delivery to the fast ones must not change. What the slow ones lose,
and how old what they read is, is told apart. Delivery is from `Broadcaster.publish` until
`runtime.client.watch` has the message. The clients share one process, so with many of them their own reading
is a part of it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware.cpu_load import Load
from benchmarks.harness.errors import SettingInvalid
from benchmarks.harness.record import (
    Figure,
    Output,
    distribution,
    new_record,
    new_table,
    percentiles,
    quantity,
)
from benchmarks.helpers.server_thread import serve_in_thread
from benchmarks.helpers.subscribers import Received, Subscribers
from runtime.messages import HEARTBEAT_S, HeartbeatMessage, HelloMessage, Latency, VerdictMessage
from runtime.serving.broadcaster import Broadcaster, new_session
from runtime.serving.metrics import Metrics
from runtime.version import version

WARMUP_S = 1.0
# Fills what the kernel and the server hold for a slow reader, so that the run shows what comes after that.
CLOG = 400
CLOG_S = 0.5
# A slow reader takes one message in the time that this many are published in.
SLOWNESS = 2.0
# What is still under way after this is lost; a slow reader first gets what was held for it.
ARRIVAL_S = 1.0
HELD = 220


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Holds what became of the messages of one run.

    Args:
        published: Numbers and times of the messages that count, float64 `(M, 2)`, in order.
        received: What arrived.
        server_cores: Cores that the server's process kept busy, the publishing included.
        client_cores: Cores that the subscribers kept busy, all together, from joining to leaving.
    """

    published: NDArray[np.float64]
    received: Received
    server_cores: float
    client_cores: float

    def delays_ms(self, repeats: int, *, slow: bool = False) -> list[list[float]]:
        """Give how long each message took to each subscriber.

        Args:
            repeats: In how many parts, by time of publishing.
            slow: Whether to look at the slow readers.

        Returns:
            A list for each part.
        """
        parts: list[list[float]] = []
        for part in np.array_split(self.published, repeats):
            delays = [
                1e3 * (arrivals[there, 1] - part[where, 1])
                for arrivals in (self.received.slow if slow else self.received.fast)
                for there, where in [_matching(arrivals[:, 0], part[:, 0])]
            ]
            parts.append(np.concatenate(delays).tolist() if delays else [])
        return parts

    def lost(self, *, slow: bool = False) -> float:
        """Give the share of the messages that never reached their subscribers, 0..1."""
        readers = self.received.slow if slow else self.received.fast
        if not readers:
            return 0.0
        numbers = self.published[:, 0]
        got = sum(np.isin(numbers, arrivals[:, 0]).sum() for arrivals in readers)
        return float(1 - got / (len(numbers) * len(readers)))


def _matching(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give the places of the numbers that two lists share, in both."""
    _, there, where = np.intersect1d(first, second, return_indices=True)
    return there, where


def run_fanout(
    *,
    subscribers: Sequence[int] = (1, 10, 100),
    slow: int = 5,
    rate_hz: float = 8.0,
    streams: int = 4,
    seconds: float = 6.0,
    repeats: int = 3,
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        subscribers: Numbers of fast subscribers, one after the other.
        slow: How many slow readers are beside them in the second run of each; 0 leaves that run out.
        rate_hz: Verdicts a second and stream.
        streams: How many streams have verdicts.
        seconds: How long each run is measured.
        repeats: In how many parts, to see the noise.
        json_out: Where to write the record; None for nowhere.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: An option is impossible, not all could join, or a record cannot be written or read.
    """
    if not subscribers or min(subscribers) < 1:
        raise SettingInvalid("--subscribers", ",".join(map(str, subscribers)), "give numbers from 1 on")
    output = Output("fanout", json_out=json_out, compare=compare)
    columns = ("p50 ms", "p90 ms", "p99 ms", "max ms", "lost", "server cores", "clients' cores", "n")
    table = new_table("subscribers", columns)
    figures: dict[str, Figure] = {}
    for fast, slowly in [(count, each) for count in subscribers for each in dict.fromkeys((0, slow))]:
        delivery = deliver(fast=fast, slow=slowly, rate_hz=rate_hz, streams=streams, seconds=seconds)
        name = f"{fast} beside {slowly} slow" if slowly else f"{fast}"
        delays = delivery.delays_ms(repeats)
        figures[f"{name}: delivery"] = distribution(delays, "ms")
        figures[f"{name}: server"] = quantity([delivery.server_cores], "cores")
        figures[f"{name}: lost"] = quantity([delivery.lost()], "share")
        table.add_row(name, *_cells(delays, delivery.lost(), delivery))
        late = delivery.delays_ms(repeats, slow=True)
        if any(late):
            figures[f"{name}: age at the slow"] = distribution(late, "ms")
            figures[f"{name}: lost by the slow"] = quantity([delivery.lost(slow=True)], "share")
            table.add_row(f"  the {slowly} slow", *_cells(late, delivery.lost(slow=True), None))
    record = new_record(
        "fanout",
        settings={
            "subscribers": list(subscribers),
            "slow": slow,
            "rate_hz": rate_hz,
            "streams": streams,
            "seconds": seconds,
            "repeats": repeats,
        },
        figures=figures,
        warmup=f"{WARMUP_S:g} s a run",
        notes=["a slow reader takes one message every half second and lets little wait for it"]
        if slow
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
    """Publish verdicts to subscribers for a while.

    Args:
        fast: How many read all that comes.
        slow: How many do not keep up.
        rate_hz: Verdicts a second and stream.
        streams: How many streams have verdicts.
        seconds: How long, after `WARMUP_S`; with slow readers a burst comes first.

    Returns:
        What became of the messages.

    Raises:
        HelperFailed: Not all could join.
    """
    broadcaster = Broadcaster(HelloMessage(version=version(), session=new_session()), sinks=[Metrics()])
    pause_s = SLOWNESS / (rate_hz * streams)
    with _served(broadcaster, fast, slow, pause_s) as subscribers:
        joined = time.monotonic()
        if slow:
            _publish(broadcaster, rate_hz=CLOG / CLOG_S, streams=1, seconds=CLOG_S)
        _publish(broadcaster, rate_hz=rate_hz, streams=streams, seconds=WARMUP_S)
        with Load() as load:
            published = _publish(broadcaster, rate_hz=rate_hz, streams=streams, seconds=seconds)
        _idle(broadcaster, max(ARRIVAL_S, HELD * pause_s) if slow else ARRIVAL_S)
        received = subscribers.collect()
        watched_s = time.monotonic() - joined
    return Delivery(
        published=np.array(published, np.float64),
        received=received,
        server_cores=load.own_cores,
        client_cores=received.cpu_s / watched_s,
    )


@contextmanager
def _served(broadcaster: Broadcaster, fast: int, slow: int, pause_s: float) -> Iterator[Subscribers]:
    with (
        serve_in_thread(broadcaster, port=0) as server,
        Subscribers(server.urls.websocket, fast=fast, slow=slow, pause_s=pause_s) as subscribers,
    ):
        yield subscribers


def _publish(
    broadcaster: Broadcaster, *, rate_hz: float, streams: int, seconds: float
) -> list[tuple[float, float]]:
    """Publish verdicts evenly in time; give the number and the time of each."""
    published = []
    started = time.monotonic()
    for count in range(max(1, round(seconds * rate_hz * streams))):
        time.sleep(max(0.0, started + count / (rate_hz * streams) - time.monotonic()))
        message = _verdict(f"camera-{count % streams + 1}", count / (rate_hz * streams))
        now = time.monotonic()
        published.append((float(broadcaster.publish(message)), now))
    return published


def _idle(broadcaster: Broadcaster, seconds: float) -> None:
    """Let messages arrive, with the heartbeats that clients expect."""
    for _ in range(math.ceil(seconds / HEARTBEAT_S)):
        broadcaster.publish(HeartbeatMessage(uptime_s=broadcaster.uptime_s, streams=()))
        time.sleep(HEARTBEAT_S)


def _verdict(stream: str, pts_s: float) -> VerdictMessage:
    """Make a message as long as a real one."""
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
