"""From a detector in torch to a directory that the runtime runs, or to nothing at all."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import export.bundle_writer
from export.bundle_writer import export_bundle, write_bundle
from export.errors import OutputOccupied, ParityFailed, WeightsUnusable
from export.parity.gates import TorchDetector
from runtime.engines.factory import open_engine
from runtime.engines.onnx_cpu.int8 import activation_ranges, int8_is_exact
from runtime.model.bundle import load_bundle
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest, Weights
from runtime.model.temporal_classifier import TEMPORAL_FILE, write_temporal_classifier
from runtime.pipeline.window import FaceWindow
from tests.export.conftest import DIM, SIZE, WINDOW, SmallHead, SmallModel, make_clips
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
    # The small detector's logits swing by tens on noise; a trained one's do not.
    calibration=Calibration(scale=50.0, offset=30.0),
    weights="int8",
    training={"data": "none"},
)


class Normalise(nn.Module):
    """From uint8 crops to what a trunk takes."""

    def forward(self, crops: Tensor) -> Tensor:
        return (crops.float().permute(0, 3, 1, 2) - 127.5) / 64


@pytest.fixture
def networks(model: SmallModel) -> TorchDetector:
    return TorchDetector(model.backbone, model.head)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of clips as a user would give it."""
    for number, clip in enumerate(make_clips(6, 11)):
        folder = tmp_path / f"crops/{number}"
        folder.mkdir(parents=True)
        for i, frame in enumerate(clip):
            cv2.imwrite(str(folder / f"{i:02}.png"), frame[..., ::-1])
    return tmp_path / "crops"


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
def test_the_bundle_answers_what_torch_answers(
    networks: TorchDetector, tmp_path: Path, crops: Path, weights: Weights
) -> None:
    """Loaded by the runtime and fed crop by crop, it gives the trained detector's probability."""
    out = tmp_path / "made/bundle"
    steps: list[str] = []
    bundle = write_bundle(
        networks, msgspec.structs.replace(MANIFEST, weights=weights), out, crops=crops, step=steps.append
    )
    assert bundle.digest == load_bundle(out).digest
    assert left(out) == ["backbone.onnx", "head.onnx", "manifest.json"]
    assert left(out.parent) == ["bundle"]
    assert len(steps) == 5 + int8_is_exact()
    (clip,) = make_clips(1, 12)
    with torch.inference_mode():
        expected = networks.head(networks.backbone(torch.from_numpy(clip))[None]).item()
    buffer = FaceWindow(bundle.window, bundle.feature_dim)
    with open_engine(bundle, threads=1) as engine:
        for i, crop in enumerate(clip):
            buffer.push(i / 8, crop, engine.features(crop[None])[0])
        logit = engine.logits(buffer.window_features()[None]).item()
    scale = bundle.calibration
    assert scale.p_fake(logit) == pytest.approx(scale.p_fake(expected), abs=0.01)


def test_the_full_size_detector_fits_its_limit(tmp_path: Path) -> None:
    """ResNeXt-50 with a hidden size of 512 takes at most 32 MB as int8 and passes without crops."""
    torch.manual_seed(0)
    trunk = torchvision.models.resnext50_32x4d(weights=None)
    trunk.fc = nn.Identity()
    head = SmallHead(inputs=2048, hidden=512)
    networks = TorchDetector(nn.Sequential(Normalise(), trunk).eval(), head.eval())
    manifest = msgspec.structs.replace(
        MANIFEST, input_size=64, window=4, feature_dim=2048, calibration=Calibration()
    )
    bundle = write_bundle(networks, manifest, tmp_path / "bundle")
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= 32_000_000
    parameters = bundle.parity["parameters"]
    assert parameters["int8"] > 8 * parameters["float16"] > 0


def test_the_manifest_tells_what_the_gates_measured(
    networks: TorchDetector, tmp_path: Path, crops: Path
) -> None:
    """Figures, limits, and on how many clips of what."""
    bundle = write_bundle(networks, MANIFEST, tmp_path / "bundle", crops=crops)
    gate_a, gate_b, clips = (bundle.parity[key] for key in ("gate_a", "gate_b", "clips"))
    assert 0 <= gate_a["clip"] <= gate_a["allowed"] == 1e-3
    assert 0 <= gate_a["buffered"] <= 1e-3
    assert 0 < gate_b["p_fake_max"] <= gate_b["p_fake_allowed"] == 0.01
    assert gate_b["flipped"] <= gate_b["flipped_allowed"] == 0.005
    assert (clips["crops"], clips["fitted"]) == (3, 3)
    assert bundle.training == {"data": "none"}
    text = (tmp_path / "bundle/manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["weights"] == "int8"


@pytest.mark.skipif(not int8_is_exact(), reason="this CPU does not compute int8 exactly (no VNNI)")
@pytest.mark.parametrize("allowed", [1.0, -1.0])
def test_ranges_stay_in_a_bundle_whose_int8_verdicts_agree(
    networks: TorchDetector, tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch, allowed: float
) -> None:
    """The backbone keeps its ranges if verdicts change within the limits; the manifest states the figures."""
    limits = {"flipped": allowed, "p_fake_mean": 1.0}
    monkeypatch.setattr(export.bundle_writer, "allowed_figures", lambda *args, **options: limits)
    bundle = write_bundle(networks, MANIFEST, tmp_path / "bundle", crops=crops)
    stated = bundle.parity["int8"]
    assert stated["used"] is (allowed > 0)
    assert 0 <= stated["flipped"] <= 1
    assert stated["windows"] > 0
    assert (activation_ranges(bundle.backbone.read_bytes()) is not None) is stated["used"]


def test_a_cpu_without_exact_int8_exports_without_ranges(
    networks: TorchDetector, tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be compared is not promised: no ranges, no int8 figures in the manifest."""
    monkeypatch.setattr(export.bundle_writer, "int8_is_exact", lambda: False)
    bundle = write_bundle(networks, MANIFEST, tmp_path / "bundle", crops=crops)
    assert "int8" not in bundle.parity
    assert activation_ranges(bundle.backbone.read_bytes()) is None


def test_a_bundle_that_fails_is_not_written(networks: TorchDetector, tmp_path: Path) -> None:
    """A calibration so sharp that rounding shows: the old bundle stays, nothing else is left."""
    out = tmp_path / "bundle"
    old = write_bundle(networks, MANIFEST, out)
    sharp = msgspec.structs.replace(MANIFEST, calibration=Calibration(scale=1e-3))
    with pytest.raises(ParityFailed, match="gate B") as caught:
        write_bundle(networks, sharp, out)
    assert "--crops" in str(caught.value)
    assert "--weights float16" in str(caught.value)
    assert load_bundle(out).digest == old.digest
    with pytest.raises(ParityFailed):
        write_bundle(networks, sharp, tmp_path / "other")
    assert left(tmp_path) == ["bundle"]


def test_a_bundle_is_replaced_and_its_card_stays(networks: TorchDetector, tmp_path: Path) -> None:
    """Exporting again renews the model; what someone wrote beside it is not ours to delete."""
    out = tmp_path / "bundle"
    first = write_bundle(networks, MANIFEST, out)
    (out / "README.md").write_text("a model card")
    second = write_bundle(networks, msgspec.structs.replace(MANIFEST, name="second", weights="float16"), out)
    assert second.digest != first.digest
    assert load_bundle(out).name == "second"
    assert "README.md" in left(out)


def test_a_judge_of_flicker_goes_from_the_checkpoint_into_the_bundle(tmp_path: Path) -> None:
    """It is exported with the network; a model without one that takes the bundle's place leaves none."""
    sizes = ModelConfig(input_size=32, hidden=8, window=4, min_frames=3)
    save_checkpoint(tmp_path / "checkpoint", ResNeXtLSTM(sizes).eval(), {})
    judge = uniform_temporal_classifier(0.1, bias=0.0, window=4)
    write_temporal_classifier(tmp_path / "checkpoint" / TEMPORAL_FILE, judge)
    out = tmp_path / "bundle"
    assert export_bundle(tmp_path / "checkpoint", out, weights="float16").temporal == judge
    (tmp_path / "checkpoint" / TEMPORAL_FILE).unlink()
    assert export_bundle(tmp_path / "checkpoint", out, weights="float16").temporal is None
    assert left(out) == ["backbone.onnx", "head.onnx", "manifest.json"]


def test_other_directories_are_left_alone(networks: TorchDetector, tmp_path: Path) -> None:
    """A wrong --out must not mix a model into someone's files; an empty folder is fine."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(b"")
    with pytest.raises(OutputOccupied, match="is no model bundle"):
        write_bundle(networks, MANIFEST, tmp_path / "photos")
    with pytest.raises(OutputOccupied):
        write_bundle(networks, MANIFEST, tmp_path / "photos/one.jpg")
    (tmp_path / "empty").mkdir()
    write_bundle(networks, MANIFEST, tmp_path / "empty")


def test_a_diverged_model_is_refused(networks: TorchDetector, tmp_path: Path) -> None:
    """NaN weights are named as such, before any gate."""
    with torch.no_grad():
        next(networks.head.parameters())[0, 0] = np.nan
    with pytest.raises(WeightsUnusable, match="go back to an earlier checkpoint"):
        write_bundle(networks, MANIFEST, tmp_path / "bundle")
    assert left(tmp_path) == []
