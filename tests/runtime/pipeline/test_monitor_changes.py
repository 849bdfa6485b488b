"""Streams that are added, removed and renamed while the monitor runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.errors import StreamNameTaken, StreamUnknown
from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage, VerdictMessage
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_thread import MonitorTiming
from streams.input.source import Source, parse_source
from tests.support.centred_face import CentredFaceFinder
from tests.support.waiting import wait_for

TIMEOUT_S = 30.0
TIMING = MonitorTiming(heartbeat_s=0.05, tick_s=0.02)


class Log:
    """Published messages, with a way to wait for one."""

    def __init__(self) -> None:
        self.messages: list[BroadcastMessage] = []
        self._changed = threading.Condition()

    def __call__(self, message: BroadcastMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for_verdicts(self, stream: str, count: int = 3) -> None:
        """Wait for further verdicts with a score on a stream."""
        start = len(self.messages)

        def enough() -> bool:
            return len([m for m in self.messages[start:] if is_scored(m, stream)]) >= count

        with self._changed:
            assert self._changed.wait_for(enough, TIMEOUT_S), self.messages[-5:]

    def about(self, stream: str) -> list[BroadcastMessage]:
        return [m for m in self.messages if not isinstance(m, HeartbeatMessage) and m.stream == stream]


def is_scored(message: BroadcastMessage, stream: str) -> bool:
    return isinstance(message, VerdictMessage) and message.stream == stream and message.p_fake is not None


def demo(name: str) -> Source:
    return replace(parse_source("demo"), name=name)


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


def make_monitor(bundle: Bundle, engine: Engine, log: Log, *sources: Source) -> Monitor:
    return Monitor(
        sources,
        sample_hz=bundle.sample_hz,
        new_analysis=lambda: StreamAnalysis(bundle, head=engine, features=engine, finder=CentredFaceFinder()),
        publish=log,
        timing=TIMING,
    )


def test_streams_come_and_go_while_another_one_continues(bundle: Bundle, engine: Engine) -> None:
    """A removed stream says so last, a renamed one keeps its face, and the first one notices nothing."""
    log = Log()
    with make_monitor(bundle, engine, log, demo("first")) as monitor:
        log.wait_for_verdicts("first")
        monitor.add(demo("second"))
        log.wait_for_verdicts("second")
        for name in ("first", "second"):
            with pytest.raises(StreamNameTaken, match=f"there is a stream '{name}' already"):
                monitor.add(demo(name))
        monitor.rename("second", "third")
        log.wait_for_verdicts("third")
        assert monitor.names == ["first", "third"]
        thread = monitor.remove("third")
        thread.join(TIMEOUT_S)
        with pytest.raises(StreamUnknown, match="no stream 'third'; the streams are 'first'"):
            monitor.remove("third")
        with pytest.raises(StreamUnknown):
            monitor.rename("third", "fourth")
        log.wait_for_verdicts("first")
        assert not monitor.finished
        # The name is free again.
        monitor.add(demo("third"))
        log.wait_for_verdicts("third")
        assert [health.stream for health in last_heartbeat(log).streams] == ["first", "third"]

    states = [m.state for m in log.about("first") if isinstance(m, StreamMessage)]
    assert states == ["connecting", "live"]
    second = log.about("second")
    assert isinstance(second[-1], StreamMessage)
    assert (second[-1].state, second[-1].reason) == ("removed", "renamed")
    # Every verdict has ended before, and the window was kept: no warming under the new name.
    assert isinstance(second[-2], VerdictMessage)
    assert second[-2].state == "stale"
    third = log.about("third")
    removed = [i for i, m in enumerate(third) if isinstance(m, StreamMessage) and m.state == "removed"]
    assert len(removed) == 1
    before = [m.state for m in third[: removed[0]] if isinstance(m, VerdictMessage)]
    assert "warming" not in before
    assert [m.state for m in third[: removed[0]] if isinstance(m, StreamMessage)] == ["live"]
    again = third[removed[0] + 1]
    assert isinstance(again, StreamMessage)
    assert again.state == "connecting"


def test_a_monitor_without_streams_waits_for_some(bundle: Bundle, engine: Engine) -> None:
    """It neither starts nor ends because there are none."""
    log = Log()
    with make_monitor(bundle, engine, log) as monitor:
        assert not monitor.finished
        monitor.add(demo("cam"))
        log.wait_for_verdicts("cam")
        monitor.remove("cam").join(TIMEOUT_S)
        assert not monitor.finished
        assert monitor.names == []
    assert monitor.finished is False


def test_a_removed_stream_does_not_end_the_monitor(bundle: Bundle, engine: Engine, broken: Source) -> None:
    """The only other source has failed; another one may be added."""
    log = Log()
    with make_monitor(bundle, engine, log, demo("cam"), broken) as monitor:
        log.wait_for_verdicts("cam")
        wait_for(lambda: monitor.finished_streams == {"notes.mp4": True}, TIMEOUT_S)
        thread = monitor.remove("cam")
        thread.join(TIMEOUT_S)
        assert not monitor.finished
        monitor.add(demo("cam"))
        log.wait_for_verdicts("cam")
        assert not monitor.finished
        assert not monitor.all_failed


@pytest.mark.parametrize("added", [True, False])
def test_a_source_that_fails_during_changes_ends_the_monitor_only_if_none_is_added(
    bundle: Bundle, engine: Engine, broken: Source, added: bool
) -> None:
    """For a moment the failed one is the only one."""
    log = Log()
    with make_monitor(bundle, engine, log, demo("cam")) as monitor:
        log.wait_for_verdicts("cam")
        with monitor.changing():
            monitor.remove("cam").join(TIMEOUT_S)
            monitor.add(broken)
            wait_for(lambda: monitor.finished_streams == {"notes.mp4": True}, TIMEOUT_S)
            assert not monitor.finished
            if added:
                monitor.add(demo("cam"))
        if added:
            log.wait_for_verdicts("cam")
        assert monitor.finished is not added


@pytest.fixture
def broken(tmp_path: Path) -> Source:
    """File that is no video."""
    path = tmp_path / "notes.mp4"
    path.write_text("no video at all\n" * 50)
    return parse_source(str(path))


def last_heartbeat(log: Log) -> HeartbeatMessage:
    return [message for message in log.messages if isinstance(message, HeartbeatMessage)][-1]
