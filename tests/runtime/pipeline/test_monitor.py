"""The monitor on real files and a real camera; only the face is where the test says it is."""

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
from runtime.pipeline.monitor import Monitor, MonitorTiming, Playback, stall_timeout_s, unique_names
from runtime.pipeline.stream_analysis import StreamAnalysis
from streams.faces.finder import Face
from streams.input.frame import Frame
from streams.input.reader import Backoff, Timeouts
from streams.input.source import Source, parse_source

TIMEOUT_S = 30.0
SCORED = ("real", "uncertain", "fake")


class Middle:
    """A finder that sees one face in the middle of every picture."""

    def find(self, frame: Frame) -> list[Face]:
        width, height = frame.width / 4, frame.height / 2
        return [Face(id=1, box=(1.5 * width, height / 2, width, height), score=0.9, detected=True)]


class Log:
    """Keeps what was published and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[BroadcastMessage] = []
        self._grown = threading.Condition()

    def __call__(self, message: BroadcastMessage) -> None:
        with self._grown:
            self.messages.append(message)
            self._grown.notify_all()

    def wait_for(self, wanted: Callable[[BroadcastMessage], bool], *, after: int = 0) -> int:
        """Wait until there is such a message; return its place."""
        found: list[int] = []

        def search() -> bool:
            found[:] = [i for i, message in enumerate(self.messages) if i >= after and wanted(message)]
            return bool(found)

        with self._grown:
            assert self._grown.wait_for(search, TIMEOUT_S), self.told()
        return found[0]

    def told(self, stream: str | None = None) -> list[str]:
        """Give the changes: states of the stream, and of its face where they differ from the last."""
        told: list[str] = []
        face = ""
        for message in self.messages:
            if isinstance(message, HeartbeatMessage) or stream not in (None, message.stream):
                continue
            if isinstance(message, StreamMessage):
                told.append(message.state)
            else:
                state = "scored" if message.state in SCORED else message.state
                if state != face:
                    told.append(f"face {state}")
                face = state
        return told


def state(wanted: str) -> Callable[[BroadcastMessage], bool]:
    return lambda message: isinstance(message, StreamMessage) and message.state == wanted


def scored(message: BroadcastMessage) -> bool:
    return isinstance(message, VerdictMessage) and message.state in SCORED


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture
def monitor_of(bundle: Bundle, engine: Engine) -> Callable[..., Monitor]:
    """Give `monitor_of(log, *sources, features=..., finder=...)`, impatient with everything."""

    def make(
        log: Log, *sources: Source, features: Any = engine, finder: Any = Middle, **options: Any
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
            analysis_of=lambda: StreamAnalysis(
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
    """Hold a port on which nobody listens, so that connecting to it is refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_a_file_is_watched_from_its_beginning_to_its_end(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """All of its samples are judged; then its face is stale, the stream has ended, and so has the monitor."""
    log = Log()
    clip = make_video(tmp_path / "short.mp4", frames=25)
    with monitor_of(log, parse_source(str(clip))) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.told() == ["connecting", "live", "face warming", "face scored", "face stale", "ended"]
    verdicts = [message for message in log.messages if isinstance(message, VerdictMessage)]
    assert len([verdict for verdict in verdicts if verdict.state != "stale"]) == 8
    assert all(verdict.captured is None for verdict in verdicts)
    assert monitor.settled
    assert not monitor.all_failed
    assert monitor.failure is None


def test_a_camera_that_goes_away_and_comes_back(
    monitor_of: Callable[..., Monitor],
    rtsp_server: Callable[..., Any],
    clip: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While it is gone nothing is scored; then it is live again and warms up anew, after one warning."""
    caplog.set_level(logging.INFO)
    camera = rtsp_server(clip)
    log = Log()
    with monitor_of(log, parse_source(camera.url())) as monitor:
        log.wait_for(scored)
        camera.kill()
        lost = log.wait_for(state("offline"))
        # Attempts fail meanwhile: refused again and again.
        beats = len(log.messages)
        for _ in range(3):
            beats = 1 + log.wait_for(lambda message: isinstance(message, HeartbeatMessage), after=beats)
        assert not any(map(scored, log.messages[lost:]))
        camera.start()
        back = log.wait_for(state("live"), after=lost)
        first = log.wait_for(scored, after=back)
        assert not any(map(scored, log.messages[lost:back]))
        warming = [m for m in log.messages[back:first] if isinstance(m, VerdictMessage)]
        assert [verdict.state for verdict in warming] == ["warming"] * len(warming)
        assert len(warming) >= 3
        health = log.messages[
            log.wait_for(lambda message: isinstance(message, HeartbeatMessage), after=first)
        ]
        assert isinstance(health, HeartbeatMessage)
        assert (health.streams[0].state, health.streams[0].reconnects) == ("live", 1)
        assert not monitor.finished
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "trying again" in warnings[0].getMessage()


def test_a_camera_that_falls_silent_is_stalled_before_it_is_offline(
    bundle: Bundle, engine: Engine, rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """Verdicts end by themselves, without a frame or an error that would end them."""
    camera = rtsp_server(clip)
    log = Log()
    monitor = Monitor(
        [parse_source(camera.url())],
        sample_hz=bundle.sample_hz,
        analysis_of=lambda: StreamAnalysis(bundle, head=engine, features=engine, finder=Middle()),
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


def test_a_source_that_never_answers_warns_once(
    monitor_of: Callable[..., Monitor], unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However many attempts an outage takes, it is told once; the monitor goes on trying."""
    log = Log()
    with monitor_of(log, parse_source(f"rtsp://ada:secret@127.0.0.1:{unused_port}/cam")) as monitor:
        offline = log.wait_for(state("offline"))
        place = offline
        for _ in range(5):
            place = 1 + log.wait_for(lambda message: isinstance(message, HeartbeatMessage), after=place)
        assert not monitor.finished
    assert log.told() == ["connecting", "offline"]
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


def test_a_source_that_cannot_be_read_leaves_the_others_alone(
    monitor_of: Callable[..., Monitor],
    make_video: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is given up with an error; only where all are given up is that the whole result."""
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all\n" * 50)
    sources = [parse_source(str(text)), parse_source(str(make_video(tmp_path / "good.mp4", frames=25)))]
    log = Log()
    with monitor_of(log, *sources) as monitor:
        assert monitor.wait(TIMEOUT_S)
        assert not monitor.all_failed
    assert log.told("notes.mp4") == ["connecting", "offline"]
    assert log.told("good.mp4")[-1] == "ended"
    assert len(caplog.records) == 1
    log = Log()
    with monitor_of(log, sources[0]) as monitor:
        assert monitor.wait(TIMEOUT_S)
        assert monitor.all_failed


def test_two_sources_of_one_name_are_told_apart(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Each stream has a name of its own and all of its own verdicts."""
    clip = parse_source(str(make_video(tmp_path / "cam.mp4", frames=25)))
    log = Log()
    with monitor_of(log, clip, clip) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.told("cam.mp4") == log.told("cam.mp4-2")
    assert log.told("cam.mp4")[-1] == "ended"


def test_a_slow_source_is_not_scored(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Four frames a second are too few for a model of eight; the stream says so."""
    log = Log()
    with monitor_of(log, parse_source(str(make_video(tmp_path / "slow.mp4", frames=12, fps=4)))) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert "too_slow" in log.told()
    assert not any(map(scored, log.messages))
    assert log.told()[-1] == "ended"


def test_pictures_without_a_face(
    monitor_of: Callable[..., Monitor], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """They make a stream that says so and has no verdict."""

    class Nowhere:
        def find(self, frame: Frame) -> list[Face]:
            return []

    log = Log()
    clip = make_video(tmp_path / "wall.mp4", frames=10)
    with monitor_of(log, parse_source(str(clip)), finder=Nowhere) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert log.told() == ["connecting", "no_face", "ended"]


def test_a_broken_engine_ends_the_monitor(
    monitor_of: Callable[..., Monitor], rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """A fault is not retried and not turned into a verdict: it comes out."""

    class Broken:
        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise EngineFailed("onnxruntime", "out of memory")

    log = Log()
    with monitor_of(log, parse_source(rtsp_server(clip).url()), features=Broken()) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert isinstance(monitor.failure, EngineFailed)
    assert not any(isinstance(message, VerdictMessage) for message in log.messages)


def test_leaving_ends_every_thread(
    monitor_of: Callable[..., Monitor], rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """After a live stream was left, nothing of it runs any more and nothing more is published."""
    log = Log()
    before = set(threading.enumerate())
    with monitor_of(log, parse_source(rtsp_server(clip).url())):
        log.wait_for(scored)
    assert set(threading.enumerate()) <= before
    assert not any(map(state("ended"), log.messages))


class Held:
    """A stop signal that only notes how long it was waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, timeout: float) -> bool:
        self.waits.append(round(timeout, 6))
        return False


def test_playback_holds_samples_back_until_their_time() -> None:
    """A file runs at its own pace, catches up after a short delay and starts over after a long one."""
    now, held = 50.0, Held()
    playback = Playback(lambda: now, held)
    playback.wait_for(7.0, restart=True)
    now = 50.1
    playback.wait_for(7.5, restart=False)
    now = 50.8
    playback.wait_for(7.6, restart=False)
    now = 50.9
    playback.wait_for(8.0, restart=False)
    now = 99.0
    playback.wait_for(8.1, restart=False)
    playback.wait_for(8.2, restart=False)
    playback.wait_for(500.0, restart=True)
    assert held.waits == [0, 0.4, 0, 0.1, 0, 0.1, 0]


def test_names_are_made_unique() -> None:
    """The second of a name is numbered, and never gets a name that a later source has."""
    assert unique_names(["cam", "door", "cam", "cam"]) == ["cam", "door", "cam-2", "cam-3"]
    assert unique_names(["cam", "cam", "cam-2"]) == ["cam", "cam-3", "cam-2"]


def test_settings_are_checked() -> None:
    """A monitor without sources, or without a heartbeat, is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one source"):
        Monitor([], sample_hz=8.0, analysis_of=lambda: None, publish=print)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="above 0"):
        MonitorTiming(heartbeat_s=0.0)
