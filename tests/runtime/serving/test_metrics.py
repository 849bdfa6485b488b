"""Metrics: counts of the published messages, with a bounded number of series."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.messages import DroppedBy, HeartbeatMessage, StreamHealth, StreamMessage
from runtime.serving.metrics import Metrics
from runtime.serving.previews.publisher import PreviewPublisher
from tests.support.wire import make_broadcaster, verdict

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Samples:
    """Read all samples as Prometheus does."""
    text, _ = metrics.expose()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return one sample; None if it does not exist."""
    return samples.get((name, frozenset(labels.items())))


def test_messages_are_counted() -> None:
    """Verdicts, scores and latencies in seconds are counted by stream and state."""
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


def test_counters_of_a_heartbeat_are_taken_over() -> None:
    """Counters of the monitor are exported as they are, not added up."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    for analysed in (8, 16):
        health = StreamHealth(
            stream="cam",
            state="live",
            analysed=analysed,
            dropped=1,
            dropped_by=DroppedBy(corrupt=1),
            reconnects=2,
        )
        broadcaster.publish(HeartbeatMessage(uptime_s=analysed / 8, streams=(health,)))
    samples = scrape(metrics)
    assert value(samples, "unmask_samples_analysed_total", stream="cam") == 16
    assert value(samples, "unmask_samples_dropped_total", stream="cam", cause="corrupt") == 1
    assert value(samples, "unmask_reconnects_total", stream="cam") == 2


def test_current_states_are_exported() -> None:
    """Stream states and faces are those at the time of the scrape."""
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


def test_the_cost_of_frames_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames for dashboards are counted with their CPU time, once there is a source of them."""
    metrics = Metrics()
    assert value(scrape(metrics), "unmask_previews_total") is None
    previews = PreviewPublisher()
    previews.received = 12
    monkeypatch.setattr(PreviewPublisher, "spent_s", 0.5)
    metrics.watch_previews(previews)
    samples = scrape(metrics)
    assert value(samples, "unmask_previews_total") == 12
    assert value(samples, "unmask_preview_cpu_seconds_total") == 0.5


def test_new_faces_add_no_series() -> None:
    """The number of series does not grow with the number of faces."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    metrics.watch(broadcaster)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    broadcaster.publish(verdict(face=1))
    before = len(scrape(metrics))
    for face in range(2, 500):
        broadcaster.publish(verdict(face=face))
    assert len(scrape(metrics)) == before


def test_registries_are_independent() -> None:
    """Two broadcasters in one process have separate metrics."""
    first, second = Metrics(), Metrics()
    make_broadcaster(sinks=[first]).publish(verdict())
    assert value(scrape(first), "unmask_messages_total", type="verdict") == 1
    assert value(scrape(second), "unmask_messages_total", type="verdict") is None


def test_the_accept_header_selects_the_format() -> None:
    """A scraper that accepts OpenMetrics gets it."""
    text, content_type = Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_a_removed_stream_leaves_no_series() -> None:
    """Streams that come and go do not fill the memory."""
    metrics = Metrics()
    broadcaster = make_broadcaster(sinks=[metrics])
    metrics.watch(broadcaster)
    broadcaster.publish(StreamMessage(stream="stays", state="live"))
    broadcaster.publish(verdict(stream="stays"))
    before = len(scrape(metrics))
    for number in range(20):
        broadcaster.publish(StreamMessage(stream=f"cam {number}", state="live"))
        broadcaster.publish(verdict(stream=f"cam {number}"))
        broadcaster.publish(StreamMessage(stream=f"cam {number}", state="removed"))
    assert len(scrape(metrics)) == before


def test_metrics_and_causes_are_documented() -> None:
    """The page on operations names every metric of the program, and every cause of a refused connection."""
    metrics = Metrics()
    metrics.watch(make_broadcaster())
    with PreviewPublisher() as previews:
        metrics.watch_previews(previews)
        text = metrics.expose()[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text(encoding="utf-8")
    names = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families.items()
        if name.startswith("unmask_")
    }
    assert {name for name in names if f"`{name}`" not in page and f"`{name}{{" not in page} == set()
    causes = families["unmask_connections_refused"].documentation.partition(": ")[2].rstrip(".").split(", ")
    assert {cause for cause in causes if f"`{cause}`" not in page} == set()
    assert "request" in causes
