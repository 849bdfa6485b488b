"""Tests of what the head of a fleet knows of each stream."""

from __future__ import annotations

from runtime.fleet.cameras.streams import StreamStates
from runtime.messages import DroppedBy, Latency, StreamHealth, StreamMessage, Thresholds, VerdictMessage

LATENCY = Latency(decode=1.0, detect=1.0, crop=1.0, backbone=1.0, head=1.0, total=5.0)


def verdict(face: int) -> VerdictMessage:
    return VerdictMessage(
        stream="cam",
        face=face,
        state="real",
        p_fake=0.1,
        box=(0.1, 0.1, 0.2, 0.2),
        window_fill=1.0,
        pts_s=1.0,
        latency_ms=LATENCY,
    )


def test_offline_makes_verdicts_stale_first() -> None:
    """As in one process: stale verdicts, then the state, each once."""
    streams = StreamStates(["cam"], {"cam": Thresholds(real=0.2, fake=0.8)})
    streams.received(StreamMessage(stream="cam", state="live"))
    streams.received(verdict(3))
    stale, state = streams.offline("cam", "its worker does not answer")
    assert isinstance(stale, VerdictMessage)
    assert isinstance(state, StreamMessage)
    assert (stale.state, stale.face, stale.p_fake) == ("stale", 3, None)
    assert (state.state, state.reason) == ("offline", "its worker does not answer")
    assert streams.offline("cam", "its worker does not answer") == []
    (again,) = streams.recovered("cam")
    assert isinstance(again, StreamMessage)
    assert again.state == "live"
    assert streams.recovered("cam") == []
    assert streams.max_face("cam") == 3


def test_counters_continue_on_another_worker() -> None:
    """The counters of all workers of a stream are added up."""
    streams = StreamStates(["cam"], {})

    def count(analysed: int, queue: int) -> None:
        dropped_by = DroppedBy(queue=queue)
        health = StreamHealth(
            stream="cam", state="live", analysed=analysed, dropped=queue, dropped_by=dropped_by, reconnects=1
        )
        streams.counted(health)

    count(10, 1)
    count(20, 2)
    streams.left("cam")
    assert streams.health()[0].analysed == 20
    count(5, 3)
    (health,) = streams.health()
    assert (health.analysed, health.dropped, health.dropped_by.queue, health.reconnects) == (25, 5, 5, 2)
    assert health.state == "connecting"
