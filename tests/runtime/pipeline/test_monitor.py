"""Tests of the monitor with real files and a real RTSP camera; only the face finder is a stand-in."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.errors import EngineFailed
from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage, VerdictMessage
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_state import stall_timeout_s
from runtime.pipeline.stream_thread import MonitorTiming, Playback, ScoredFrame
from streams.faces.finder import Face
from streams.input.capture.interface import Timeouts
from streams.input.frame import Frame
from streams.input.reader import Backoff
from streams.input.source import Source, parse_source
from tests.support.centred_face import CentredFaceFinder

TIMEOUT_S = 30.0
SCORED = ("real", "uncertain", "fake")


class MessageLog:
    """Published messages, with a way to wait for one of them."""

    def __init__(self) -> None:
        self.messages: list[BroadcastMessage] = []
        self._changed = threading.Condition()

    def __call__(self, message: BroadcastMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[BroadcastMessage], bool], *, after: int = 0) -> int:
        """Wait for a matching message from index `after` on, and return its index."""
        matches: list[int] = []

        def search() -> bool:
            matches[:] = [i for i, message in enumerate(self.messages) if i >= after and wanted(message)]
            return bool(matches)

        with self._changed:
            assert self._changed.wait_for(search, TIMEOUT_S), self.changes()
        return matches[0]

    def changes(self, stream: str | None = None) -> list[str]:
        """Return the changes of state of a stream and of its face, in order."""
        changes: list[str] = []
        face = ""
        for message in self.messages:
            if isinstance(message, HeartbeatMessage) or stream not in (None, message.stream):
                continue
            if isinstance(message, StreamMessage):
                changes.append(message.state)
            else:
                state = "scored" if message.state in SCORED else message.state
                if state != face:
                    changes.append(f"face {state}")
                face = state
        return changes


def state(wanted: str) -> Callable[[BroadcastMessage], bool]:
    return lambda message: isinstance(message, StreamMessage) and message.state == wanted


def scored(message: BroadcastMessage) -> bool:
    return isinstance(message, VerdictMessage) and message.state in SCORED


def heartbeat(message: BroadcastMessage) -> bool:
    return isinstance(message, HeartbeatMessage)


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture
def monitor_of(bundle: Bundle, engine: Engine) -> Callable[..., Monitor]:
    """Factory of monitors with short timeouts: `monitor_of(log, *sources, features=..., finder=...)`."""

    def make(
        log: MessageLog,
        *sources: Source,
        features: Any = engine,
        finder: Any = CentredFaceFinder,
        **options: Any,
    ) -> Monitor:
        timing = MonitorTiming(
            timeouts=Timeouts(open_s=5.0, read_s=0.5),
            backoff=Backoff(first_s=0.02, max_s=0.1),
            heartbeat_s=0.1,
            tick_s=0.02,
        )
        return Monitor(
            sources,
            sample_hz=bundle.sample_hz,
            new_analysis=lambda: StreamAnalysis(
                bundle,
                head=engine,
                features=features,
                finder=finder(),
                expiry_s=stall_timeout_s(bundle.sample_hz),
            ),
            publish=log,
            timing=timing,
            **options,
        )

    return make


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Port that is bound but not listening, so that connections to it are refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_file_is_analysed_to_its_end(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Every sample gets a verdict; then the face is stale, the stream has ended and the monitor finishes."""
    log = MessageLog()
    frames: list[ScoredFrame] = []
    clip = make_video(tmp_path / "short.mp4", frames=25)
    with monitor_of(log, parse_source(str(clip)), on_frame=frames.append) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.changes() == ["connecting", "live", "face warming", "face scored", "face stale", "ended"]
    verdicts = [message for message in log.messages if isinstance(message, VerdictMessage)]
    assert len([verdict for verdict in verdicts if verdict.state != "stale"]) == 8
    assert all(verdict.captured is None for verdict in verdicts)
    # Each frame is passed on with its verdicts, once they were published.
    assert [frame.verdicts for frame in frames] == [
        (verdict,) for verdict in verdicts if verdict.state != "stale"
    ]
    assert [round(frame.frame.pts_s, 3) for frame in frames] == [verdict.pts_s for verdict in verdicts[:8]]
    assert {frame.stream for frame in frames} == {verdicts[0].stream}
    assert monitor.settled
    assert not monitor.all_failed
    assert monitor.failure is None


def test_camera_that_disconnects_and_reconnects(
    monitor_of: Callable[..., Monitor],
    rtsp_server: Callable[..., Any],
    clip: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no score while it is offline; afterwards it is live and warms up again, with one warning.

    That the CPU decodes it instead of the hardware is said once, not at every connection.
    """
    caplog.set_level(logging.INFO)
    camera = rtsp_server(clip)
    log = MessageLog()
    with monitor_of(log, parse_source(camera.url(), hwaccel="qsv")) as monitor:
        log.wait_for(scored)
        camera.kill()
        lost = log.wait_for(state("offline"))
        # During three heartbeats, several attempts to reconnect are refused.
        index = len(log.messages)
        for _ in range(3):
            index = 1 + log.wait_for(heartbeat, after=index)
        assert not any(map(scored, log.messages[lost:]))
        camera.start()
        back = log.wait_for(state("live"), after=lost)
        first = log.wait_for(scored, after=back)
        assert not any(map(scored, log.messages[lost:back]))
        warming = [m for m in log.messages[back:first] if isinstance(m, VerdictMessage)]
        assert [verdict.state for verdict in warming] == ["warming"] * len(warming)
        assert len(warming) >= 3
        health = log.messages[log.wait_for(heartbeat, after=first)]
        assert isinstance(health, HeartbeatMessage)
        assert (health.streams[0].state, health.streams[0].reconnects) == ("live", 1)
        assert not monitor.finished
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    hardware, lost_once = [record.getMessage() for record in warnings]
    assert "decoded by the CPU, not by qsv" in hardware
    assert "trying again" in lost_once


def test_silent_camera_is_stalled_before_it_is_offline(
    bundle: Bundle, engine: Engine, rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """The verdicts end after the stall timeout, before the read timeout reports an error."""
    camera = rtsp_server(clip)
    log = MessageLog()
    monitor = Monitor(
        [parse_source(camera.url())],
        sample_hz=bundle.sample_hz,
        new_analysis=lambda: StreamAnalysis(bundle, head=engine, features=engine, finder=CentredFaceFinder()),
        publish=log,
        timing=MonitorTiming(timeouts=Timeouts(read_s=1.5), tick_s=0.02),
    )
    with monitor:
        log.wait_for(scored)
        camera.freeze()
        stalled = log.wait_for(state("stalled"))
        before = log.messages[stalled - 1]
        assert isinstance(before, VerdictMessage)
        assert (before.state, before.p_fake, before.latency_ms) == ("stale", None, None)
        offline = log.wait_for(state("offline"), after=stalled)
        assert not any(map(scored, log.messages[stalled:offline]))
        camera.thaw()


def test_unreachable_source_is_logged_once(
    monitor_of: Callable[..., Monitor], unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage is published and logged once, however many attempts fail; the monitor keeps trying."""
    log = MessageLog()
    with monitor_of(log, parse_source(f"rtsp://ada:secret@127.0.0.1:{unused_port}/cam")) as monitor:
        index = log.wait_for(state("offline"))
        for _ in range(5):
            index = 1 + log.wait_for(heartbeat, after=index)
        assert not monitor.finished
    assert log.changes() == ["connecting", "offline"]
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


def test_unreadable_source_does_not_affect_the_others(
    monitor_of: Callable[..., Monitor],
    make_video: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It fails with one error; `all_failed` is true only if every source has failed."""
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all\n" * 50)
    sources = [parse_source(str(text)), parse_source(str(make_video(tmp_path / "good.mp4", frames=25)))]
    log = MessageLog()
    with monitor_of(log, *sources) as monitor:
        assert monitor.wait(TIMEOUT_S)
        assert not monitor.all_failed
    assert log.changes("notes.mp4") == ["connecting", "offline"]
    assert log.changes("good.mp4")[-1] == "ended"
    assert len(caplog.records) == 1
    log = MessageLog()
    with monitor_of(log, sources[0]) as monitor:
        assert monitor.wait(TIMEOUT_S)
        assert monitor.all_failed


def test_sources_of_the_same_name_get_different_names(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Each stream has its own name and its own verdicts."""
    clip = parse_source(str(make_video(tmp_path / "cam.mp4", frames=25)))
    log = MessageLog()
    with monitor_of(log, clip, clip) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.changes("cam.mp4") == log.changes("cam.mp4-2")
    assert log.changes("cam.mp4")[-1] == "ended"


def test_source_with_too_few_frames_is_not_scored(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """A source of 4 frames per second is `too_slow` for a model of 8 Hz."""
    log = MessageLog()
    with monitor_of(log, parse_source(str(make_video(tmp_path / "slow.mp4", frames=12, fps=4)))) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert "too_slow" in log.changes()
    assert not any(map(scored, log.messages))
    assert log.changes()[-1] == "ended"


def test_frames_without_a_face(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """The stream is `no_face` and has no verdict."""

    class NoFaceFinder:
        def find(self, frame: Frame) -> list[Face]:
            return []

    log = MessageLog()
    clip = make_video(tmp_path / "wall.mp4", frames=10)
    with monitor_of(log, parse_source(str(clip)), finder=NoFaceFinder) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.changes() == ["connecting", "no_face", "ended"]


def test_engine_error_ends_the_monitor(
    monitor_of: Callable[..., Monitor], rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """The error is neither retried nor turned into a verdict; `failure` returns it."""

    class Broken:
        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise EngineFailed("onnxruntime", "out of memory")

    log = MessageLog()
    with monitor_of(log, parse_source(rtsp_server(clip).url()), features=Broken()) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert isinstance(monitor.failure, EngineFailed)
    assert not any(isinstance(message, VerdictMessage) for message in log.messages)


def test_leaving_the_context_ends_every_thread(
    monitor_of: Callable[..., Monitor], rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """After leaving a live stream no thread is left, and the stream is not published as ended."""
    log = MessageLog()
    before = set(threading.enumerate())
    with monitor_of(log, parse_source(rtsp_server(clip).url())):
        log.wait_for(scored)
    assert set(threading.enumerate()) <= before
    assert not any(map(state("ended"), log.messages))


def test_playback_follows_the_time_stamps_of_a_file() -> None:
    """Samples wait until they are due; a short delay is caught up with, a long one moves the schedule."""
    playback = Playback()
    steps = [
        (7.0, 50.0, True),
        (7.5, 50.1, False),
        (7.6, 50.8, False),
        (8.0, 50.9, False),
        (8.1, 99.0, False),
        (8.2, 99.0, False),
        (500.0, 99.0, True),
    ]
    delays = [round(playback.delay_s(pts_s, now, restart=restart), 6) for pts_s, now, restart in steps]
    assert delays == [0, 0.4, 0, 0.1, 0, 0.1, 0]


def test_arguments_are_checked() -> None:
    """A heartbeat interval of 0 raises an error."""
    with pytest.raises(ValueError, match="above 0"):
        MonitorTiming(heartbeat_s=0.0)
