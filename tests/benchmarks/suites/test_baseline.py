"""The original method and unmask on a real video, with a small network for the original."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from benchmarks.harness.errors import NothingMeasured, SettingInvalid, VideoTooShort
from benchmarks.suites.baseline import method_cost
from benchmarks.suites.baseline import original_method as original
from benchmarks.suites.baseline.benchmark import BaselineConfig, run_baseline
from benchmarks.suites.baseline.method_cost import MethodBench, MethodCost
from benchmarks.suites.baseline.original_method import OriginalNetwork, first_frames, whole_clip
from runtime.engines.factory import open_engine
from runtime.model.bundle import DEFAULT_BUNDLE, load_bundle
from streams.errors import SourceNotVideo
from streams.input.source import parse_source
from train.models.config import ORIGINAL

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
    config = replace(ORIGINAL, input_size=32, window=FRAMES, min_frames=2, hidden=16)
    monkeypatch.setattr(original, "ORIGINAL", config)
    monkeypatch.setattr(original, "SIZE", 32)
    for module in (original, method_cost):
        monkeypatch.setattr(module, "CLIP", FRAMES)


def test_cost_is_the_median_of_the_repetitions() -> None:
    """The cost is the median over the repetitions; per second of video it depends on the rate of verdicts."""
    method = MethodCost(name="m", faces_s=[1.0, 2.0, 3.0], network_s=[10.0, 20.0, 10.0], verdicts_hz=0.5)
    assert method.total_s == [11.0, 22.0, 13.0]
    assert method.per_verdict_s == 13.0
    assert method.figures()["m: CPU a second of video"].value == 6.5


@pytest.mark.parametrize(("whole", "faces", "network"), [(5.0, 2.0, 3.0), (2.0, 0.0, 2.0)])
def test_network_is_charged_for_the_features_that_it_computes(
    whole: float, faces: float, network: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of every second sample count half; both parts never exceed the cost of the whole."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert bundle.feature_every == 2
    bench = object.__new__(MethodBench)
    bench.__dict__.update(_bundle=bundle, _repeats=1, _step=lambda _: None)
    monkeypatch.setattr(MethodBench, "_cpu_s", lambda *_, **__: [6.0])
    monkeypatch.setattr(MethodBench, "_analyse_video", lambda *_: whole)
    cost = bench.unmask(engine=Mock(), infer=Mock())
    assert (cost.faces_s, cost.network_s, cost.total_s) == ([faces], [network], [whole])


@pytest.mark.usefixtures("small")
def test_record_has_all_figures(face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every method has its line and both parts of its cost; the ratios come last."""
    out = tmp_path / "baseline.json"
    assert (
        run_baseline(
            BaselineConfig(
                video=str(face_video), repeats=2, compiled=False, model=DEFAULT_BUNDLE, json_out=out
            )
        )
        == 0
    )
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
def test_all_forms_give_the_same_logit(tmp_path: Path, face_video: Path) -> None:
    """The exported network computes the function of the original, so their costs can be compared."""
    faces = original.HogFaces()
    crops = [
        crop
        for frame in first_frames(parse_source(str(face_video)), FRAMES)
        if (crop := faces.crop(frame)) is not None
    ]
    assert len(crops) == FRAMES
    clip = whole_clip(crops)
    assert clip.shape == (FRAMES, 32, 32, 3)
    network = OriginalNetwork.random()
    logit = float(network.eager(clip)())  # type: ignore[arg-type]
    with open_engine(network.bundle(tmp_path), "onnxruntime") as engine:
        (exported,) = engine.logits(engine.features(clip)[None])
    assert exported == pytest.approx(logit, abs=1e-3)


def test_too_few_crops_are_repeated() -> None:
    """The clip is always full, so the cost of the network does not depend on dlib."""
    clip = whole_clip([])
    assert clip.shape == (original.CLIP, original.SIZE, original.SIZE, 3)


def test_a_short_video_is_refused(tmp_path: Path, make_face_video: Callable[..., Path]) -> None:
    """The error has the number of frames, and the number needed."""
    path = make_face_video(tmp_path / "short.mp4", seconds=2.0)
    with pytest.raises(VideoTooShort, match="50 frames, but the original method scores 80"):
        run_baseline(BaselineConfig(video=str(path), model=DEFAULT_BUNDLE))


def test_a_video_without_a_face(clip: Path) -> None:
    """The error is raised before the original method runs, which takes minutes."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_baseline(BaselineConfig(video=str(clip), model=DEFAULT_BUNDLE))


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    """The error is that of every command."""
    path = tmp_path / "text.txt"
    path.write_text("no video\n")
    with pytest.raises(SourceNotVideo):
        run_baseline(BaselineConfig(video=str(path), model=DEFAULT_BUNDLE))


def test_live_sources_are_refused() -> None:
    """Live sources are an error."""
    with pytest.raises(SettingInvalid, match="VIDEO demo"):
        run_baseline(BaselineConfig(video="demo", model=DEFAULT_BUNDLE))
