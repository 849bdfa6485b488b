"""Metrics count what went over the wire, and their number stays bounded."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from runtime.messages import HeartbeatMessage, StreamHealth, StreamMessage
from runtime.serving.metrics import Metrics
from tests.support.wire import make_broadcaster, verdict

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Samples:
    """Read all samples the way Prometheus does."""
    text, _ = metrics.expose()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Look one sample up; None if it is not there."""
    return samples.get((name, frozenset(labels.items())))


def test_messages_are_counted() -> None:
    """Verdicts, scores and latencies are there by stream and state, in seconds as Prometheus wants them."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    broadcaster.publish(verdict(state="warming"))
    for _ in range(3):
        broadcaster.publish(verdict())
    broadcaster.publish(verdict(state="stale", latency_ms=None))
    samples = scrape(metrics)
    assert value(samples, "unmask_messages_total", type="verdict") == 5
    assert value(samples, "unmask_messages_total", type="stream") == 1
    assert value(samples, "unmask_verdicts_total", stream="cam", state="fake") == 3
    assert value(samples, "unmask_verdicts_total", stream="cam", state="stale") == 1
    assert value(samples, "unmask_p_fake_count", stream="cam") == 3
    assert value(samples, "unmask_p_fake_bucket", stream="cam", le="0.9") == 0
    assert value(samples, "unmask_latency_seconds_count", stream="cam", stage="total") == 4
    assert value(samples, "unmask_latency_seconds_sum", stream="cam", stage="total") == 4 * 0.085


def test_the_counts_of_a_heartbeat_are_the_streams_own() -> None:
    """What the monitor counts itself is taken over, not added up."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    for analysed in (8, 16):
        health = StreamHealth(stream="cam", state="live", analysed=analysed, dropped=1, reconnects=2)
        broadcaster.publish(HeartbeatMessage(uptime_s=analysed / 8, streams=(health,)))
    samples = scrape(metrics)
    assert value(samples, "unmask_samples_analysed_total", stream="cam") == 16
    assert value(samples, "unmask_samples_dropped_total", stream="cam") == 1
    assert value(samples, "unmask_reconnects_total", stream="cam") == 2


def test_what_holds_now_is_told() -> None:
    """States and faces are those of the moment of the scrape."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    metrics.watch(broadcaster)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    for face in (1, 2):
        broadcaster.publish(verdict(face=face))
    broadcaster.publish(verdict(face=3, state="warming"))
    samples = scrape(metrics)
    assert value(samples, "unmask_stream_state", stream="cam", state="live") == 1
    assert value(samples, "unmask_stream_state", stream="cam", state="offline") == 0
    assert value(samples, "unmask_faces", stream="cam", state="fake") == 2
    assert value(samples, "unmask_faces", stream="cam", state="warming") == 1
    assert value(samples, "unmask_faces", stream="cam", state="real") == 0
    assert value(samples, "unmask_clients") == 0
    assert value(samples, "unmask_client_messages_lost_total") == 0
    assert value(samples, "unmask_build_info", version="1.2.3", model="small", engine="a CPU") == 1
    broadcaster.publish(StreamMessage(stream="cam", state="offline"))
    samples = scrape(metrics)
    assert value(samples, "unmask_stream_state", stream="cam", state="offline") == 1
    assert value(samples, "unmask_faces", stream="cam", state="fake") == 0


def test_faces_do_not_make_metrics_grow() -> None:
    """A day of passers-by, each with an id of its own, adds no series."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    metrics.watch(broadcaster)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    broadcaster.publish(verdict(face=1))
    before = len(scrape(metrics))
    for face in range(2, 500):
        broadcaster.publish(verdict(face=face))
    assert len(scrape(metrics)) == before


def test_two_programs_in_one_process_do_not_mix() -> None:
    """The registry is the hub's own, so that tests and embedders can have several."""
    first, second = Metrics(), Metrics()
    make_broadcaster(sinks=[first]).publish(verdict())
    assert value(scrape(first), "unmask_messages_total", type="verdict") == 1
    assert value(scrape(second), "unmask_messages_total", type="verdict") is None


def test_the_format_is_the_one_asked_for() -> None:
    """A scraper that speaks OpenMetrics gets it."""
    text, content_type = Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
