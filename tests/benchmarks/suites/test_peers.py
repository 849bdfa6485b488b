"""Per-frame detectors with a small classifier and unmask, on a real video."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import pytest
from torch import nn

from benchmarks.harness.errors import NothingMeasured, SettingInvalid, StepEnded
from benchmarks.helpers.fresh_process import in_process
from benchmarks.suites.peers import benchmark, frame_detector
from benchmarks.suites.peers.benchmark import PeersConfig, run_peers
from benchmarks.suites.peers.frame_detector import CLASSIFIERS, FrameClassifier, LargestFace
from benchmarks.suites.peers.method_run import WARMUP, RunLimits, measure_verdicts, run_unmask
from runtime.errors import ExtraMissing
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.input.frame import Frame

LIMITS = RunLimits(verdicts=4, sample_hz=8.0, threads=1)


@pytest.fixture
def mtcnn(skip_or_fail: Callable[[str], NoReturn]) -> None:
    """The face detector of the other methods."""
    if importlib.util.find_spec("facenet_pytorch") is None:
        skip_or_fail("facenet-pytorch is not installed: the extra bench has it")


def frames(count: int) -> list[Frame]:
    """Return black frames."""
    image = av.VideoFrame(16, 16, "yuv420p")
    return [
        Frame(
            image=image,
            pts=number,
            time_base=Fraction(1, 8),
            captured=None,
            decode_ms=0.0,
            connection=1,
            segment=1,
        )
        for number in range(count)
    ]


def test_cost_of_a_frame_without_a_verdict_belongs_to_the_next_verdict() -> None:
    """The warm-up is left out, and every CPU second after it is charged to a verdict."""
    cpu_s: Iterator[float] = iter([1.0, 2.0, 3.0, 5.0, 9.0])
    clock: Iterator[float] = iter([0.0, 0.1] * 3 + [0.0, 0.0, 0.2, 0.0, 0.3])
    answers = iter([True] * WARMUP + [False, True, True])
    spent_s, latency_ms = measure_verdicts(
        frames(9),
        lambda frame: next(answers),
        2,
        cpu_clock=lambda: next(cpu_s),
        clock=lambda: next(clock),
    )
    assert spent_s == [2.0, 4.0]
    assert latency_ms == pytest.approx([200.0, 300.0])


@pytest.mark.usefixtures("mtcnn")
def test_record_has_all_methods(
    face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each classifier runs in both libraries, and the ratios to unmask come last."""
    small = FrameClassifier(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 1)), 32)
    monkeypatch.setattr(frame_detector, "CLASSIFIERS", {"small": small})

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(benchmark, "in_process", call)
    out = tmp_path / "peers.json"
    assert run_peers(PeersConfig(video=str(face_video), verdicts=4, repeats=2, threads=1, json_out=out)) == 0
    record = json.loads(out.read_text())
    peers = ["small, PyTorch", "small, onnxruntime"]
    assert list(record["libraries"]) == ["unmask", *peers]
    costs = {name: record["figures"][f"{name}: CPU a verdict"]["value"] for name in record["libraries"]}
    printed = capsys.readouterr().out
    for peer in peers:
        assert record["ratio_cpu_per_verdict"][peer] == pytest.approx(costs[peer] / costs["unmask"], abs=0.1)
        assert record["figures"][f"{peer}: frame to verdict"]["n"] == 4
        assert f"{costs[peer] / costs['unmask']:.1f}" in printed


@pytest.mark.usefixtures("mtcnn")
def test_largest_face_is_cut_out_of_the_whole_frame(face_video: Path) -> None:
    """The crop shows the face with a margin; a frame without a face has none."""
    with av.open(str(face_video)) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(np.uint8)
    face = LargestFace()
    crop = face.crop(rgb, 64)
    assert crop is not None
    assert crop.shape == (64, 64, 3)
    assert face.crop(np.zeros((128, 128, 3), np.uint8), 64) is None


def test_classifiers_have_one_output() -> None:
    """The networks are the published ones, by the number of their weights."""
    weights = {
        name: sum(weight.numel() for weight in classifier.build().parameters()) / 1e6
        for name, classifier in CLASSIFIERS.items()
    }
    assert weights == pytest.approx({"EfficientNet-B4": 17.5, "Xception": 20.8}, abs=0.1)


def test_unmask_is_measured_without_torch(face_video: Path) -> None:
    """In its process unmask has the memory that it needs itself."""
    run = in_process(run_unmask, str(face_video), LIMITS, DEFAULT_BUNDLE, "onnxruntime")
    assert len(run.cpu_s) == len(run.latency_ms) == LIMITS.verdicts
    assert min(run.cpu_s) > 0
    assert run.memory_mib is None or 50 < run.memory_mib < 600


def test_errors_of_the_process(tmp_path: Path) -> None:
    """An error passes through the process; its end is an error too."""
    video = tmp_path / "black.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for frame in frames(30):
            container.mux(stream.encode(frame.image.reformat(64, 64)))
        container.mux(stream.encode(None))
    with pytest.raises(NothingMeasured, match=r"black\.mkv: nothing to measure"):
        in_process(run_unmask, str(video), LIMITS, DEFAULT_BUNDLE, "onnxruntime")
    with pytest.raises(StepEnded, match="step _exit ended without a result"):
        in_process(os._exit, 1)


def test_only_a_file_is_measured(face_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sources, and a missing extra, are errors before anything is measured."""
    with pytest.raises(SettingInvalid, match="VIDEO demo"):
        run_peers(PeersConfig(video="demo"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match="facenet-pytorch"):
        run_peers(PeersConfig(video=str(face_video)))
