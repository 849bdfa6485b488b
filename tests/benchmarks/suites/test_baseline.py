"""The original method and ours on a real video, the original's network cut down for a test."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.harness.errors import NothingMeasured, SettingInvalid, TooShort
from benchmarks.suites.baseline import benchmark as baseline
from benchmarks.suites.baseline import original_method as original
from benchmarks.suites.baseline.benchmark import MethodCost, run_baseline
from benchmarks.suites.baseline.original_method import Network, pictures, whole_clip
from runtime.engines.factory import open_engine
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.input.source import parse_source

FRAMES = 6
LINES = [
    "original",
    "without dlib",
    "without dlib, onnxruntime",
    "feature buffer alone",
    "unmask",
]


@pytest.fixture(autouse=True)
def dlib(skip_or_fail: Callable[[str], NoReturn]) -> None:
    """The face detector of the original method."""
    if importlib.util.find_spec("dlib") is None:
        skip_or_fail("dlib is not installed: the extra bench has it")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same method with a clip of six crops at 32 px, and a narrow LSTM."""
    config = replace(original.ORIGINAL, input_size=32, window=FRAMES, min_frames=2, hidden=16)
    monkeypatch.setattr(original, "ORIGINAL", config)
    monkeypatch.setattr(original, "SIZE", 32)
    for module in (original, baseline):
        monkeypatch.setattr(module, "CLIP", FRAMES)


def test_a_method_adds_up() -> None:
    """Its cost is the median of the repetitions' sums, and for a second of video goes by its own rate."""
    method = MethodCost(name="m", faces_s=[1.0, 2.0, 3.0], network_s=[10.0, 20.0, 10.0], verdicts_hz=0.5)
    assert method.total_s == [11.0, 22.0, 13.0]
    assert method.per_verdict_s == 13.0
    assert method.figures()["m: CPU a second of video"].value == 6.5


@pytest.mark.usefixtures("small")
def test_the_record(face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step has its line and both parts of its cost; the ratios are those of the lines, and last."""
    out = tmp_path / "baseline.json"
    assert run_baseline(str(face_video), repeats=2, compiled=False, model=DEFAULT_BUNDLE, json_out=out) == 0
    record = json.loads(out.read_text())
    figures = record["figures"]
    for line in LINES:
        whole, faces, network = (
            figures[f"{line}: CPU a verdict{part}"] for part in ("", ", faces", ", network")
        )
        sums = [
            sum(pair) for pair in zip(*(part["repeats"]["value"] for part in (faces, network)), strict=True)
        ]
        assert whole["repeats"]["value"] == pytest.approx(sums, rel=1e-4)
    assert list(record)[-1] == "ratio_cpu_per_verdict"
    ratio = figures["original: CPU a verdict"]["value"] / figures["unmask: CPU a verdict"]["value"]
    assert record["ratio_cpu_per_verdict"] == pytest.approx(ratio, rel=0.01, abs=0.06)
    assert (record["dlib_faces"], record["video"]) == (FRAMES, {"width": 640, "height": 360, "fps": 25.0})
    printed = capsys.readouterr().out
    assert all(line in printed for line in LINES)


@pytest.mark.usefixtures("small")
def test_all_forms_judge_alike(tmp_path: Path, face_video: Path) -> None:
    """The exported clip and the compiled one are the original's function, so their costs compare."""
    faces = original.HogFaces()
    crops = [
        crop
        for picture in pictures(parse_source(str(face_video)), FRAMES)
        if (crop := faces.crop(picture)) is not None
    ]
    assert len(crops) == FRAMES
    clip = whole_clip(crops)
    assert clip.shape == (FRAMES, 32, 32, 3)
    network = Network.random()
    logit = float(network.eager(clip)())  # type: ignore[arg-type]
    with open_engine(network.bundle(tmp_path), "onnxruntime") as engine:
        (exported,) = engine.logits(engine.features(clip)[None])
    assert exported == pytest.approx(logit, abs=1e-3)


def test_too_few_crops_are_repeated() -> None:
    """The clip is always full: the network's cost does not depend on what dlib found."""
    clip = whole_clip([])
    assert clip.shape == (original.CLIP, original.SIZE, original.SIZE, 3)


def test_a_short_video(tmp_path: Path, make_face_video: Callable[..., Path]) -> None:
    """It is told that, and how many frames there would have to be."""
    path = make_face_video(tmp_path / "short.mp4", seconds=2.0)
    with pytest.raises(TooShort, match="50 frames, but the original method judges 80"):
        run_baseline(str(path), model=DEFAULT_BUNDLE)


def test_a_video_without_a_face(clip: Path) -> None:
    """That is found out before the minutes that the original takes."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_baseline(str(clip), model=DEFAULT_BUNDLE)


def test_only_files() -> None:
    """The original has no live input."""
    with pytest.raises(SettingInvalid, match="VIDEO demo"):
        run_baseline("demo", model=DEFAULT_BUNDLE)
