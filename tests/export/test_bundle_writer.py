"""A torch detector becomes a directory that the runtime loads, or nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch

import export.bundle_writer
from export.bundle_writer import export_bundle, write_bundle
from export.errors import OutputOccupied, ParityFailed, WeightsUnusable
from export.parity.torch_detector import TorchDetector
from runtime.engines.factory import open_engine
from runtime.engines.onnx_cpu.int8 import activation_ranges, int8_is_exact
from runtime.model.bundle import Bundle, load_bundle
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest, Weights
from runtime.model.temporal_classifier import TEMPORAL_FILE, write_temporal_classifier
from runtime.pipeline.window import FaceWindow
from tests.export.conftest import DIM, SIZE, WINDOW, make_clips, small_model
from tests.support.temporal import uniform_temporal_classifier
from train.models.checkpoint import save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM

MANIFEST = Manifest(
    name="small",
    input_size=SIZE,
    crop_margin=1.3,
    sample_hz=8.0,
    window=WINDOW,
    min_frames=3,
    feature_dim=DIM,
    # The logits of the small detector vary by tens on noise, unlike those of a trained one.
    calibration=Calibration(scale=50.0, offset=30.0),
    weights="int8",
    training={"data": "none"},
)
FILES = ["backbone.onnx", "head.onnx", "manifest.json"]


def small_detector() -> TorchDetector:
    model = small_model()
    return TorchDetector(model.backbone, model.head)


@pytest.fixture
def detector() -> TorchDetector:
    return small_detector()


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six clips of face crops."""
    path = tmp_path_factory.mktemp("crops")
    for number, clip in enumerate(make_clips(6, 11)):
        folder = path / str(number)
        folder.mkdir()
        for i, frame in enumerate(clip):
            cv2.imwrite(str(folder / f"{i:02}.png"), frame[..., ::-1])
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle written without crops; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(small_detector(), MANIFEST, out)
    return out


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
def test_the_bundle_gives_the_probability_of_torch(
    detector: TorchDetector, tmp_path: Path, crops: Path, weights: Weights
) -> None:
    """Loaded by the runtime and fed crop by crop, it gives the probability of the trained detector."""
    out = tmp_path / "made/bundle"
    steps: list[str] = []
    bundle = write_bundle(
        detector, msgspec.structs.replace(MANIFEST, weights=weights), out, crops=crops, step=steps.append
    )
    assert bundle.digest == load_bundle(out).digest
    assert names_in(out) == FILES
    assert names_in(out.parent) == ["bundle"]
    assert len(steps) == 5 + int8_is_exact()
    (clip,) = make_clips(1, 12)
    with torch.inference_mode():
        expected = detector.head(detector.backbone(torch.from_numpy(clip))[None]).item()
    buffer = FaceWindow(bundle.window, bundle.feature_dim)
    with open_engine(bundle, threads=1) as engine:
        for i, crop in enumerate(clip):
            buffer.push(i / 8, crop, engine.features(crop[None])[0])
        logit = engine.logits(buffer.window_features()[None]).item()
    p_fake = bundle.calibration.p_fake
    assert p_fake(logit) == pytest.approx(p_fake(expected), abs=0.01)
    if weights == "int8":
        _check_parity_section(bundle)


def _check_parity_section(bundle: Bundle) -> None:
    """Check that the manifest contains the figures of the gates, their limits and the number of clips."""
    gate_a, gate_b, clips = (bundle.parity[key] for key in ("gate_a", "gate_b", "clips"))
    assert 0 <= gate_a["clip"] <= gate_a["allowed"] == 1e-3
    assert 0 <= gate_a["buffered"] <= 1e-3
    assert 0 < gate_b["p_fake_max"] <= gate_b["p_fake_allowed"] == 0.01
    assert gate_b["flipped"] <= gate_b["flipped_allowed"] == 0.005
    assert (clips["crops"], clips["fitted"]) == (3, 3)
    assert bundle.training == {"data": "none"}
    text = (bundle.path / "manifest.json").read_text()
    assert str(bundle.path.parent) not in text
    assert json.loads(text)["weights"] == "int8"


@pytest.mark.skipif(not int8_is_exact(), reason="this CPU does not compute int8 exactly (no VNNI)")
@pytest.mark.parametrize("allowed", [1.0, -1.0])
def test_ranges_stay_in_a_bundle_whose_int8_verdicts_agree(
    detector: TorchDetector, tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch, allowed: float
) -> None:
    """The backbone keeps its ranges if verdicts change within the limits; the manifest states the figures."""
    limits = {"flipped": allowed, "p_fake_mean": 1.0}
    monkeypatch.setattr(export.bundle_writer, "allowed_figures", lambda *args, **options: limits)
    bundle = write_bundle(detector, MANIFEST, tmp_path / "bundle", crops=crops)
    figures = bundle.parity["int8"]
    assert figures["used"] is (allowed > 0)
    assert 0 <= figures["flipped"] <= 1
    assert figures["windows"] > 0
    assert (activation_ranges(bundle.backbone.read_bytes()) is not None) is figures["used"]


def test_a_cpu_without_exact_int8_exports_without_ranges(
    detector: TorchDetector, tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 arithmetic that cannot be compared is left out: no ranges, no int8 figures in the manifest."""
    monkeypatch.setattr(export.bundle_writer, "int8_is_exact", lambda: False)
    bundle = write_bundle(detector, MANIFEST, tmp_path / "bundle", crops=crops)
    assert "int8" not in bundle.parity
    assert activation_ranges(bundle.backbone.read_bytes()) is None


def test_a_bundle_that_fails_a_gate_is_not_written(
    detector: TorchDetector, written: Path, tmp_path: Path
) -> None:
    """Gate B fails on a very steep calibration: the old bundle stays, and no other file is left."""
    out = tmp_path / "bundle"
    shutil.copytree(written, out)
    digest = load_bundle(out).digest
    steep = msgspec.structs.replace(MANIFEST, calibration=Calibration(scale=1e-3))
    with pytest.raises(ParityFailed, match="gate B") as caught:
        write_bundle(detector, steep, out)
    assert "--crops" in str(caught.value)
    assert "--weights float16" in str(caught.value)
    assert load_bundle(out).digest == digest
    with pytest.raises(ParityFailed):
        write_bundle(detector, steep, tmp_path / "other")
    assert names_in(tmp_path) == ["bundle"]


def test_a_bundle_is_replaced_and_other_files_stay(
    detector: TorchDetector, written: Path, tmp_path: Path
) -> None:
    """A second export replaces the model and keeps the model card; a stale temporal classifier is removed."""
    out = tmp_path / "bundle"
    shutil.copytree(written, out)
    (out / "README.md").write_text("a model card")
    (out / TEMPORAL_FILE).write_text("of the model before")
    second = write_bundle(detector, msgspec.structs.replace(MANIFEST, name="second", weights="float16"), out)
    assert second.digest != load_bundle(written).digest
    assert load_bundle(out).name == "second"
    assert second.temporal is None
    assert names_in(out) == ["README.md", *FILES]


def test_a_checkpoint_of_full_size_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNeXt-50 and an LSTM of 512 take at most 32 MB as int8, and the temporal classifier is included."""
    for constant in ("NOISE_CLIPS", "PORTRAIT_CLIPS"):
        monkeypatch.setattr(export.bundle_writer, constant, 1)
    torch.manual_seed(0)
    config = ModelConfig(input_size=32, hidden=512, window=4, min_frames=3)
    model = ResNeXtLSTM(config).eval()
    for name, weight in model.named_parameters():
        # Zero before training; equal weights could not be distinguished in the graph.
        if name.endswith("bn3.weight"):
            torch.nn.init.constant_(weight, 0.3)
    save_checkpoint(tmp_path / "checkpoint", model, {})
    classifier = uniform_temporal_classifier(0.1, bias=0.0, window=4)
    write_temporal_classifier(tmp_path / "checkpoint" / TEMPORAL_FILE, classifier)
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    assert bundle.temporal == classifier
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= 32_000_000
    parameters = bundle.parity["parameters"]
    assert parameters["int8"] > 8 * parameters["float16"] > 0


def test_a_directory_with_other_files_is_refused(detector: TorchDetector, tmp_path: Path) -> None:
    """A directory with other files is refused; an empty one is used."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(b"")
    with pytest.raises(OutputOccupied, match="is no model bundle"):
        write_bundle(detector, MANIFEST, tmp_path / "photos")
    with pytest.raises(OutputOccupied):
        write_bundle(detector, MANIFEST, tmp_path / "photos/one.jpg")
    (tmp_path / "empty").mkdir()
    write_bundle(detector, MANIFEST, tmp_path / "empty")


def test_a_diverged_model_is_refused(detector: TorchDetector, tmp_path: Path) -> None:
    """NaN weights are an error of their own, before any gate runs."""
    with torch.no_grad():
        next(detector.head.parameters())[0, 0] = np.nan
    with pytest.raises(WeightsUnusable, match="use an earlier checkpoint"):
        write_bundle(detector, MANIFEST, tmp_path / "bundle")
    assert names_in(tmp_path) == []
