"""Prometheus metrics, counted from the published messages.

Track ids are not used as labels: they are never reused, so their number is unbounded.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from runtime.messages import (
    FaceState,
    HeartbeatMessage,
    StreamHealth,
    StreamMessage,
    StreamState,
    VerdictMessage,
)
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.previews.publisher import PreviewPublisher

# From one stage on a fast GPU to a camera with seconds of delay.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
P_FAKE_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """Counters of one broadcaster's messages, in a registry of their own; a sink of the broadcaster.

    Attributes:
        registry: Prometheus registry; other collectors may be added to it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = Counter("unmask_messages", "Published messages.", ["type"], registry=self.registry)
        self._verdicts = Counter(
            "unmask_verdicts", "Verdicts by state.", ["stream", "state"], registry=self.registry
        )
        self._p_fake = Histogram(
            "unmask_p_fake",
            "Calibrated probability of a fake, per scored verdict.",
            ["stream"],
            buckets=P_FAKE_BUCKETS,
            registry=self.registry,
        )
        self._latency = Histogram(
            "unmask_latency_seconds",
            "Time per verdict and stage; total counts from capture for a live source.",
            ["stream", "stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._refused = Counter(
            "unmask_connections_refused",
            "Connections refused, by cause: clients, host, origin, proxy, request, right, system, token.",
            ["cause"],
            registry=self.registry,
        )
        self._current = _CurrentState()
        self.registry.register(self._current)
        ProcessCollector(registry=self.registry)

    def __call__(self, encoded: EncodedMessage) -> None:
        """Count a message."""
        message = encoded.message
        self._messages.labels(message.type).inc()
        if isinstance(message, VerdictMessage):
            self._verdicts.labels(message.stream, message.state).inc()
            if message.p_fake is not None:
                self._p_fake.labels(message.stream).observe(message.p_fake)
            if message.latency_ms is not None:
                for stage, spent_ms in msgspec.structs.asdict(message.latency_ms).items():
                    self._latency.labels(message.stream, stage).observe(spent_ms / 1000)
        elif isinstance(message, StreamMessage) and message.state == "removed":
            for metric in (self._verdicts, self._p_fake, self._latency):
                metric.remove_by_labels({"stream": message.stream})
        elif isinstance(message, HeartbeatMessage):
            self._current.health = message.streams

    def count_refusal(self, cause: str) -> None:
        """Count a refused connection."""
        self._refused.labels(cause).inc()

    def watch(self, broadcaster: Broadcaster) -> None:
        """Export the broadcaster's own figures too: current states, clients and lost messages.

        Args:
            broadcaster: The broadcaster that has this object as a sink.
        """
        self._current.broadcaster = broadcaster

    def watch_output(self, name: str, lost: Callable[[], int]) -> None:
        """Export the number of lines that an output has lost.

        Args:
            name: Name of the output, as a label.
            lost: Function that returns the number of lost lines; called for each scrape.
        """
        self._current.outputs[name] = lost

    def watch_previews(self, previews: PreviewPublisher) -> None:
        """Export the number of frames encoded for clients, and the CPU time that this has taken.

        Args:
            previews: Publisher of the frames.
        """
        self._current.previews = previews

    def expose(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return all metrics as text, and its content type.

        Args:
            accept: Accept header of the request, which selects the format.
        """
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class _CurrentState:
    """Collector of values at the time of the scrape, as opposed to counted messages."""

    def __init__(self) -> None:
        self.broadcaster: Broadcaster | None = None
        # Replaced as a whole by the publishing thread, so that the scraping thread needs no lock.
        self.health: Sequence[StreamHealth] = ()
        self.outputs: dict[str, Callable[[], int]] = {}
        self.previews: PreviewPublisher | None = None

    def collect(self) -> Iterator[Metric]:
        analysed = CounterMetricFamily(
            "unmask_samples_analysed", "Due samples that were analysed.", labels=["stream"]
        )
        dropped = CounterMetricFamily(
            "unmask_samples_dropped", "Due samples without a verdict, by cause.", labels=["stream", "cause"]
        )
        reconnects = CounterMetricFamily(
            "unmask_reconnects", "Number of times that the source was lost.", labels=["stream"]
        )
        waiting = GaugeMetricFamily(
            "unmask_faces_waiting", "Faces that wait for their turn to be analysed.", labels=["stream"]
        )
        for health in self.health:
            waiting.add_metric([health.stream], health.waiting)
            analysed.add_metric([health.stream], health.analysed)
            for cause, count in msgspec.structs.asdict(health.dropped_by).items():
                dropped.add_metric([health.stream, cause], count)
            reconnects.add_metric([health.stream], health.reconnects)
        yield from (analysed, dropped, reconnects, waiting)
        outputs_lost = CounterMetricFamily(
            "unmask_output_lines_lost",
            "Lines lost because an output was too slow or failed.",
            labels=["output"],
        )
        for name, lost in self.outputs.items():
            outputs_lost.add_metric([name], lost())
        yield outputs_lost
        if self.previews is not None:
            yield CounterMetricFamily(
                "unmask_previews", "Frames encoded for clients that request them.", self.previews.encoded
            )
            yield CounterMetricFamily(
                "unmask_preview_cpu_seconds", "CPU time spent on encoding them.", self.previews.spent_s
            )
        if self.broadcaster is not None:
            yield from _broadcaster_metrics(self.broadcaster)


def _broadcaster_metrics(broadcaster: Broadcaster) -> Iterator[Metric]:
    snapshot = broadcaster.snapshot()
    states = GaugeMetricFamily(
        "unmask_stream_state", "1 for the current state of a stream, else 0.", labels=["stream", "state"]
    )
    faces = GaugeMetricFamily("unmask_faces", "Faces in view, by state.", labels=["stream", "state"])
    tally = Tally((verdict.stream, verdict.state) for verdict in snapshot.verdicts)
    for stream in snapshot.streams:
        for stream_state in get_args(StreamState):
            states.add_metric([stream.stream, stream_state], float(stream_state == stream.state))
        for state in get_args(FaceState):
            if state != "stale":
                faces.add_metric([stream.stream, state], tally[stream.stream, state])
    yield from (states, faces)

    yield GaugeMetricFamily("unmask_clients", "Connected WebSocket clients.", broadcaster.clients)
    yield CounterMetricFamily(
        "unmask_client_messages_lost", "Messages lost by slow clients.", broadcaster.lost
    )
    yield GaugeMetricFamily("unmask_uptime_seconds", "Seconds since the start.", broadcaster.uptime_s)
    info = GaugeMetricFamily(
        "unmask_build_info",
        "Version, model and engine in use; always 1.",
        labels=["version", "model", "engine"],
    )
    hello = broadcaster.hello
    info.add_metric([hello.version, hello.model or "", hello.engine or ""], 1.0)
    yield info
