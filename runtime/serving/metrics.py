"""What Prometheus can scrape, counted from the messages themselves.

No label holds a face's id: ids are never used twice, so their number has no bound.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from runtime.messages import HealthDict, State, StreamState
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.client_queue import EncodedMessage

# From a fast GPU's stage to a camera that is seconds behind.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
P_FAKE_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """Counts the messages of one hub in a registry of its own; a sink of the hub.

    Attributes:
        registry: What is scraped; other collectors may be added to it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = Counter("unmask_messages", "Broadcast messages.", ["type"], registry=self.registry)
        self._verdicts = Counter(
            "unmask_verdicts", "Verdicts by state.", ["stream", "state"], registry=self.registry
        )
        self._p_fake = Histogram(
            "unmask_p_fake",
            "Calibrated probability that a face is forged, per scored verdict.",
            ["stream"],
            buckets=P_FAKE_BUCKETS,
            registry=self.registry,
        )
        self._latency = Histogram(
            "unmask_latency_seconds",
            "Time that a verdict took, by stage; total counts from capture for a live source.",
            ["stream", "stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._present = _Present()
        self.registry.register(self._present)
        ProcessCollector(registry=self.registry)

    def __call__(self, encoded: EncodedMessage) -> None:
        """Count a message."""
        message = encoded.message
        self._messages.labels(message["type"]).inc()
        if message["type"] == "verdict":
            stream = message["stream"]
            self._verdicts.labels(stream, message["state"]).inc()
            if message["p_fake"] is not None:
                self._p_fake.labels(stream).observe(message["p_fake"])
            latency = message["latency_ms"]
            if latency is not None:
                self._latency.labels(stream, "decode").observe(latency["decode"] / 1000)
                self._latency.labels(stream, "detect").observe(latency["detect"] / 1000)
                self._latency.labels(stream, "backbone").observe(latency["backbone"] / 1000)
                self._latency.labels(stream, "head").observe(latency["head"] / 1000)
                self._latency.labels(stream, "total").observe(latency["total"] / 1000)
        elif message["type"] == "heartbeat":
            self._present.health = message["streams"]

    def watch(self, broadcaster: Broadcaster) -> None:
        """Report also what the hub itself knows: what holds now, its clients, and what slow ones lost.

        Args:
            hub: The hub whose sink this is.
        """
        self._present.broadcaster = broadcaster

    def expose(self, accept: str | None = None) -> tuple[bytes, str]:
        """Write all metrics down.

        Args:
            accept: The request's Accept header, which chooses the format.

        Returns:
            The text and its content type.
        """
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class _Present:
    """Collects what is true at the moment of a scrape, rather than what has been counted."""

    def __init__(self) -> None:
        self.broadcaster: Broadcaster | None = None
        # Replaced whole by the publishing thread, so that the scraping one reads it without a lock.
        self.health: list[HealthDict] = []

    def collect(self) -> Iterator[Metric]:
        analysed = CounterMetricFamily(
            "unmask_samples_analysed", "Due samples that were analysed.", labels=["stream"]
        )
        dropped = CounterMetricFamily(
            "unmask_samples_dropped", "Due samples that got no verdict.", labels=["stream"]
        )
        reconnects = CounterMetricFamily(
            "unmask_reconnects", "Times that the source was lost.", labels=["stream"]
        )
        for health in self.health:
            analysed.add_metric([health["stream"]], health["analysed"])
            dropped.add_metric([health["stream"]], health["dropped"])
            reconnects.add_metric([health["stream"]], health["reconnects"])
        yield from (analysed, dropped, reconnects)
        if self.broadcaster is not None:
            yield from _of_hub(self.broadcaster)


def _of_hub(broadcaster: Broadcaster) -> Iterator[Metric]:
    present = broadcaster.snapshot()
    states = GaugeMetricFamily(
        "unmask_stream_state", "1 for the state that a stream is in.", labels=["stream", "state"]
    )
    faces = GaugeMetricFamily("unmask_faces", "Faces in view, by state.", labels=["stream", "state"])
    tally = Tally((verdict["stream"], verdict["state"]) for verdict in present["verdicts"])
    for stream in present["streams"]:
        name = stream["stream"]
        for stream_state in get_args(StreamState):
            states.add_metric([name, stream_state], float(stream_state == stream["state"]))
        for state in get_args(State):
            if state != "stale":
                faces.add_metric([name, state], tally[name, state])
    yield from (states, faces)

    yield GaugeMetricFamily("unmask_clients", "Connected WebSocket clients.", broadcaster.clients)
    yield CounterMetricFamily(
        "unmask_client_messages_lost", "Messages that slow clients lost.", broadcaster.lost
    )
    yield GaugeMetricFamily("unmask_uptime_seconds", "Seconds since the start.", broadcaster.uptime_s)
    info = GaugeMetricFamily(
        "unmask_build_info", "Who runs; always 1.", labels=["version", "model", "engine"]
    )
    identity = broadcaster.identity
    info.add_metric([identity.version, identity.model or "", identity.engine or ""], 1.0)
    yield info
