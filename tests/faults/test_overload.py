"""Fault: the analysis is slower than the cameras. Five cameras, each with an engine of another speed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from runtime.engines.factory import open_engine
from runtime.messages import SCORED_STATES, BroadcastMessage, HeartbeatMessage, StreamMessage
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from runtime.pipeline.stream_thread import MonitorTiming
from streams.input.continuity import MAX_BRIDGED_STEP
from streams.input.frame import Frame
from streams.input.source import parse_source
from tests.support.centred_face import CentredFaceFinder
from tests.support.faulty_camera import FaultyCamera, grey, steady
from tests.support.small_bundle import write_small_bundle

TIMEOUT_S = 60.0
SLOWNESSES = (0.5, 1.2, 1.5, 2.0, 3.0, 5.0)
FRAMES = 140


@dataclass
class Run:
    """Frames and scores of one stream's analysis."""

    samples: list[tuple[int, float]] = field(default_factory=list)
    """Segment and media time of each sample."""
    scores: int = 0
    spliced: list[FaceVerdict] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    lost: int = 0


class SlowAnalysis(StreamAnalysis):
    """Analysis that takes a given time for each sample, and keeps a record."""

    def __init__(self, bundle: Bundle, run: Run, *, service_s: float, **options: Any) -> None:
        super().__init__(bundle, **options)
        self._run = run
        self._service_s = service_s
        self._window = bundle.window
        self._never = threading.Event()

    def analyse(self, frame: Frame) -> list[FaceVerdict]:
        self._never.wait(self._service_s)
        verdicts = super().analyse(frame)
        run = self._run
        run.samples.append((frame.segment, frame.pts_s))
        in_segment = sum(segment == frame.segment for segment, _ in run.samples)
        for verdict in verdicts:
            run.scores += verdict.state in SCORED_STATES
            if round(verdict.window_fill * self._window) > in_segment:
                run.spliced.append(verdict)
        return verdicts


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Run]]:
    """Runs of five seconds by slowness, in the order of `SLOWNESSES`, all at the same time."""
    bundle = load_bundle(write_small_bundle(tmp_path_factory.mktemp("bundles") / "small"))
    runs = {f"cam{index}": Run() for index in range(len(SLOWNESSES))}
    ended = {name: threading.Event() for name in runs}

    def publish(message: BroadcastMessage) -> None:
        if isinstance(message, HeartbeatMessage):
            for health in message.streams:
                runs[health.stream].lost = health.dropped_by.queue
        elif isinstance(message, StreamMessage):
            runs[message.stream].states.append(message.state)
            if message.state in ("stalled", "offline"):  # the camera has sent all its frames
                ended[message.stream].set()

    def new_analysis() -> StreamAnalysis:
        name = threading.current_thread().name.split()[-1]
        slowness = SLOWNESSES[list(runs).index(name)]
        return SlowAnalysis(
            bundle,
            runs[name],
            service_s=slowness / bundle.sample_hz,
            head=engine,
            features=engine,
            finder=CentredFaceFinder(),
        )

    frames = steady(grey(FRAMES))
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(bundle, "onnxruntime", threads=1))
        cameras = [stack.enter_context(FaultyCamera(frames)) for _ in runs]
        sources = [parse_source(f"{name}={camera.url}") for name, camera in zip(runs, cameras, strict=True)]
        timing = MonitorTiming(heartbeat_s=0.1)
        with Monitor(
            sources, sample_hz=bundle.sample_hz, new_analysis=new_analysis, publish=publish, timing=timing
        ):
            for name in runs:
                assert ended[name].wait(TIMEOUT_S), runs[name].states
        yield list(runs.values())


def test_the_score_rate_falls_smoothly(runs: list[Run]) -> None:
    """Each slower machine gives fewer scores, and none of the first five gives none."""
    scores = [run.scores for run in runs]
    assert scores == sorted(scores, reverse=True), scores
    assert scores[0] > 8 * 4
    assert all(slower >= 0.15 * faster > 0 for faster, slower in itertools.pairwise(scores[:-1])), scores


def test_samples_are_thinned_before_a_segment_ends(runs: list[Run]) -> None:
    """Up to one and a half times too slow, all samples are in one segment; what was left out is counted."""
    for run in runs[:3]:
        assert {segment for segment, _ in run.samples} == {1}
    assert runs[0].lost <= 4  # the first samples, while everything starts
    assert [run.lost for run in runs] == sorted(run.lost for run in runs)


def test_no_window_is_spliced(runs: list[Run]) -> None:
    """No window has more samples than its segment, and no segment spans a gap."""
    for run in runs:
        assert run.spliced == []
        for (segment, before_s), (next_segment, after_s) in itertools.pairwise(run.samples):
            assert segment != next_segment or 0 < after_s - before_s <= MAX_BRIDGED_STEP / 8 + 1e-3


def test_a_machine_too_slow_for_any_score_is_overloaded(runs: list[Run]) -> None:
    """Five times too slow is `overloaded`; up to twice as slow is not, and nothing flaps."""
    assert "overloaded" in runs[-1].states
    for run in runs[:4]:
        assert run.states[:2] == ["connecting", "live"]
        assert "overloaded" not in run.states
    assert max(len(run.states) for run in runs) <= 6, "\n".join(f"{run.states} {run.scores}" for run in runs)
