"""Faults inside one stream: any exception in its decoder or its analysis. The other streams lose nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
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
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_thread import MonitorTiming
from streams.faces.finder import Face
from streams.input.capture.factory import open_capture
from streams.input.capture.interface import Capture, DecodedFrame
from streams.input.frame import Frame
from streams.input.reader import Backoff
from streams.input.source import Source, parse_source
from tests.support.centred_face import CentredFaceFinder
from tests.support.small_bundle import write_small_bundle

TIMEOUT_S = 60.0
FRAMES_BEFORE = 12


class Panic(BaseException):
    """Error outside `Exception`, as native libraries raise it."""


class Injection:
    """Error that one stream raises, once per run until it is switched off."""

    def __init__(self, error: BaseException, place: str) -> None:
        self.error = error
        self.place = place
        self.active = True
        self._frames = 0

    def after_a_while(self, place: str) -> None:
        """Raise the error after some frames, if this is its place."""
        if self.active and self.place == place:
            self._frames += 1
            if self._frames > FRAMES_BEFORE:
                self.active = False
                raise self.error


def in_broken_stream() -> bool:
    return "broken" in threading.current_thread().name


class FailingFaceFinder(CentredFaceFinder):
    """Finder that may fail after a while."""

    def __init__(self, injection: Injection | None) -> None:
        self._injection = injection

    def find(self, frame: Frame) -> list[Face]:
        if self._injection is not None:
            self._injection.after_a_while("analysis")
        return super().find(frame)


class FaultyCapture:
    """Capture whose decoder raises the error."""

    def __init__(self, capture: Capture, injection: Injection) -> None:
        self._capture = capture
        self._injection = injection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)

    def frames(self) -> Iterator[DecodedFrame]:
        for frame in self._capture.frames():
            self._injection.after_a_while("decoder")
            yield frame


class PoisonedFeatures:
    """Batcher for which the crops of one stream fail."""

    def __init__(self, batcher: Batcher, injection: Injection) -> None:
        self._batcher = batcher
        self._injection = injection

    def announce(self) -> AbstractContextManager[None]:
        return self._batcher.announce()

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if in_broken_stream():
            self._injection.after_a_while("engine")
        return self._batcher.features(crops)


class MessageLog:
    """Published messages, with a way to wait for one of them."""

    def __init__(self) -> None:
        self.messages: list[BroadcastMessage] = []
        self._changed = threading.Condition()

    def __call__(self, message: BroadcastMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[BroadcastMessage], bool], after: int = 0) -> int:
        """Wait for a matching message from index `after` on, and return its index."""
        found: list[int] = []

        def search() -> bool:
            found[:] = [i for i, message in enumerate(self.messages) if i >= after and wanted(message)]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(search, TIMEOUT_S), self.messages[-20:]
        return found[0]

    def states(self, stream: str) -> list[str]:
        return [m.state for m in self.messages if isinstance(m, StreamMessage) and m.stream == stream]


def scored(stream: str) -> Callable[[BroadcastMessage], bool]:
    return lambda m: isinstance(m, VerdictMessage) and m.stream == stream and m.p_fake is not None


def in_state(stream: str, state: str) -> Callable[[BroadcastMessage], bool]:
    return lambda m: isinstance(m, StreamMessage) and (m.stream, m.state) == (stream, state)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_small_bundle(tmp_path_factory.mktemp("bundles") / "small"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


FAULTS = [
    pytest.param("analysis", ZeroDivisionError("a bug"), id="bug in the analysis"),
    pytest.param("analysis", MemoryError(), id="no memory in the analysis"),
    pytest.param("analysis", SystemExit(3), id="a library calls exit"),
    pytest.param("analysis", Panic("native"), id="native library panics"),
    pytest.param("decoder", IndexError("a bug"), id="bug while decoding"),
    pytest.param("decoder", Panic("native"), id="native library panics while decoding"),
    pytest.param("engine", EngineFailed("onnxruntime", "not finite"), id="engine refuses one stream's crops"),
]


@pytest.mark.parametrize(("place", "error"), FAULTS)
def test_an_error_in_one_stream_restarts_that_stream(
    place: str,
    error: BaseException,
    bundle: Bundle,
    engine: Engine,
    rtsp_server: Callable[..., Any],
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is offline with a reason and one traceback, then live again under new ids; the other goes on."""
    injection = Injection(error, place)

    def faulty_capture(source: Source, **options: Any) -> Any:
        capture = open_capture(source, **options)
        return FaultyCapture(capture, injection) if source.name == "broken" else capture

    monkeypatch.setattr("streams.input.reader.open_capture", faulty_capture)
    camera = rtsp_server(clip).url()
    sources = [parse_source(camera, name="broken"), parse_source(camera, name="good")]
    log, threads = MessageLog(), set(threading.enumerate())
    with Batcher(engine.features) as batcher:

        def new_analysis() -> StreamAnalysis:
            finder = FailingFaceFinder(injection if in_broken_stream() else None)
            features = PoisonedFeatures(batcher, injection)
            return StreamAnalysis(bundle, head=engine, features=features, finder=finder)

        timing = MonitorTiming(backoff=Backoff(first_s=0.02, max_s=0.1), heartbeat_s=0.1, tick_s=0.02)
        with Monitor(
            sources, sample_hz=bundle.sample_hz, new_analysis=new_analysis, publish=log, timing=timing
        ) as monitor:
            offline = log.wait_for(in_state("broken", "offline"))
            back = log.wait_for(scored("broken"), after=offline)
            log.wait_for(scored("good"), after=back)
            assert not monitor.finished
        assert monitor.failure is None
    kind = type(error).__name__
    message = log.messages[offline]
    assert isinstance(message, StreamMessage)
    assert message.reason == f"internal error ({kind}), see the log"
    broken = [m for m in log.messages if isinstance(m, VerdictMessage) and m.stream == "broken"]
    assert {m.face for m in broken} == {1, 2}
    assert not any(m.face == 1 and m.p_fake is not None for m in broken if log.messages.index(m) > offline)
    assert log.states("good") == ["connecting", "live"]
    records = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [("Traceback" in text, f"broken: internal error ({kind})" in text) for text in records] == [
        (True, True)
    ]
    assert set(threading.enumerate()) <= threads


def test_an_engine_that_fails_for_all_streams_ends_the_monitor(
    bundle: Bundle, engine: Engine, rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """A failed engine is distinguished from a failed stream by a call with an empty crop."""

    class BrokenEngine:
        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("the device is gone")

    log = MessageLog()
    sources = [parse_source(rtsp_server(clip).url(), name=name) for name in ("one", "two")]
    with Monitor(
        sources,
        sample_hz=bundle.sample_hz,
        new_analysis=lambda: StreamAnalysis(
            bundle, head=engine, features=BrokenEngine(), finder=FailingFaceFinder(None)
        ),
        publish=log,
    ) as monitor:
        assert monitor.wait(TIMEOUT_S)
    assert str(monitor.failure) == "the device is gone"
    assert not any(isinstance(message, VerdictMessage) for message in log.messages)


def test_a_file_that_always_fails_ends(
    bundle: Bundle, engine: Engine, face_video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file begins again twice; then its stream stays offline, and the monitor ends."""

    class BrokenFinder:
        def find(self, frame: Frame) -> list[Face]:
            raise IndexError("a bug")

    log = MessageLog()
    with Monitor(
        [parse_source(str(face_video))],
        sample_hz=bundle.sample_hz,
        new_analysis=lambda: StreamAnalysis(bundle, head=engine, features=engine, finder=BrokenFinder()),
        publish=log,
        timing=MonitorTiming(backoff=Backoff(first_s=0.02, max_s=0.1)),
    ) as monitor:
        assert monitor.wait(TIMEOUT_S)
        assert monitor.all_failed
    assert monitor.failure is None
    assert log.states("face.mp4")[-1] == "offline"
    assert [record.getMessage().count("Traceback") for record in caplog.records] == [1, 0, 0]


def test_heartbeats_survive_an_error_in_one_stream(
    bundle: Bundle, engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that all streams share goes on when the state of one of them raises."""

    def tick(state: Any, now: float) -> list[BroadcastMessage]:
        raise IndexError("a bug")

    monkeypatch.setattr("runtime.pipeline.stream_state.StreamStateMachine.tick", tick)
    log = MessageLog()
    with Monitor(
        [parse_source(str(clip))],
        sample_hz=bundle.sample_hz,
        new_analysis=lambda: StreamAnalysis(
            bundle, head=engine, features=engine, finder=FailingFaceFinder(None)
        ),
        publish=log,
        timing=MonitorTiming(heartbeat_s=0.02, tick_s=0.01),
    ):
        for index in range(3):
            log.wait_for(lambda message: isinstance(message, HeartbeatMessage), after=index)
