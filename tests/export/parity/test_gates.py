"""The gates: equal detectors pass, different ones fail."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.errors import ParityFailed
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from export.onnx_graph.rounding import round_weights
from export.parity.gates import EngineParity, RoundingParity, engine_parity, rounding_parity
from export.parity.torch_detector import TorchDetector
from export.parity.verdict_parity import parity_figures
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.model.bundle import load_bundle, write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest
from tests.export.conftest import DIM, SIZE, WINDOW, SmallHead, SmallModel, make_clips

MANIFEST = Manifest(
    name="small",
    input_size=SIZE,
    crop_margin=1.3,
    sample_hz=8.0,
    window=WINDOW,
    min_frames=3,
    feature_dim=DIM,
    weights="int8",
)


@pytest.fixture
def trained(model: SmallModel) -> TorchDetector:
    return TorchDetector(model.backbone, model.head)


@pytest.fixture
def stored(model: SmallModel) -> TorchDetector:
    """The small detector, folded and with a head of its own."""
    backbone = fold_for_inference(model.backbone, torch.from_numpy(make_clips(1, 0)[0]))
    return TorchDetector(backbone, copy.deepcopy(model.head))


@pytest.fixture
def engine(stored: TorchDetector, tmp_path: Path) -> Iterator[Engine]:
    weights = round_weights(stored.backbone, stored.head, "int8", None)
    onnx.save(backbone_graph(stored.backbone, SIZE, weights), tmp_path / "backbone.onnx")
    onnx.save(head_graph(stored.head, DIM, weights), tmp_path / "head.onnx")
    write_manifest(tmp_path, MANIFEST)
    with open_engine(load_bundle(tmp_path), "onnxruntime", threads=1) as engine:
        yield engine


def shift_logits(detector: TorchDetector, shift: float) -> None:
    assert isinstance(detector.head, SmallHead)
    with torch.no_grad():
        detector.head.out.bias.add_(shift)


def test_gate_a_compares_both_paths_and_every_window(stored: TorchDetector, engine: Engine) -> None:
    """An engine with the same weights passes; a shift of two thousandths of a logit fails."""
    groups = [make_clips(3, 7), make_clips(1, 8)]
    parity = engine_parity(stored, engine, groups, min_frames=3)
    parity.check()
    assert parity.windows == (3 * WINDOW - 2) + (WINDOW - 2)
    assert parity.clip < 1e-4
    assert parity.buffered < 1e-4
    shift_logits(stored, 2e-3)
    parity = engine_parity(stored, engine, [make_clips(1, 7)], min_frames=3)
    with pytest.raises(ParityFailed, match="gate A failed, no bundle was written") as caught:
        parity.check()
    assert caught.value.measured == pytest.approx(2e-3, rel=0.1)


def test_gate_a_fails_on_values_that_are_not_finite() -> None:
    """NaN compares false with every limit, and must fail."""
    with pytest.raises(ParityFailed):
        EngineParity(clip=float("nan"), buffered=0.0, windows=1).check()
    with pytest.raises(ParityFailed):
        EngineParity(clip=0.0, buffered=float("inf"), windows=1).check()


def test_gate_b_measures_what_rounding_changes(trained: TorchDetector, stored: TorchDetector) -> None:
    """A shift of the logit is measured exactly, and only clips of faces count as verdicts."""
    shift_logits(stored, 0.02)
    noise, faces = make_clips(2, 1), [make_clips(3, 2), make_clips(1, 3)]
    calibration = Calibration(scale=2.0)
    parity = rounding_parity(trained, stored, noise, faces, calibration=calibration, min_frames=3)
    assert parity.windows == 6 * (WINDOW - 2)
    assert parity.faces == 4 * (WINDOW - 2)
    assert parity.logit_max == pytest.approx(0.02, abs=1e-4)
    assert parity.logit_mean == pytest.approx(0.02, abs=1e-4)
    assert 0 < parity.p_fake_mean <= parity.p_fake_max <= 0.25 * 0.02 / 2 + 1e-5


def test_gate_b_counts_flipped_verdicts(trained: TorchDetector, stored: TorchDetector) -> None:
    """A shift that moves one of six clips over 0.5 flips a sixth of the windows."""
    clips = make_clips(6, 9)
    with torch.no_grad():
        features = trained.backbone(torch.from_numpy(clips).flatten(0, 1)).reshape(6, WINDOW, -1)
        low, middle, high = (float(z) for z in trained.head(features).sort().values[2:5])
    shift = min(middle - low, high - middle)
    shift_logits(stored, shift)
    # p_fake 0.5 lies between the middle logit before and after the shift, and no other logit crosses it.
    calibration = Calibration(offset=-(middle + shift / 2))
    parity = rounding_parity(trained, stored, clips[:0], [clips], calibration=calibration, min_frames=WINDOW)
    assert parity.flipped == pytest.approx(1 / 6)
    with pytest.raises(ParityFailed, match="flipped") as caught:
        replace(parity, p_fake_max=0.0).check("try float16")
    assert str(caught.value).endswith("try float16")


def test_gate_b_limits_the_change_of_p_fake() -> None:
    """A change of more than 0.01, or NaN, fails even if no verdict flips."""
    passing = RoundingParity(
        p_fake_max=0.01,
        p_fake_mean=0.0,
        logit_max=0.1,
        logit_mean=0.0,
        flipped=0.005,
        states=0.0,
        windows=9,
        faces=9,
    )
    passing.check("")
    for p_fake_max in (0.0101, float("nan")):
        with pytest.raises(ParityFailed, match="gate B failed"):
            replace(passing, p_fake_max=p_fake_max, flipped=0.0).check("")


def test_figures_have_three_digits() -> None:
    """The manifest contains rounded figures and the limits."""
    figures = parity_figures(EngineParity(clip=1.23456e-6, buffered=0.0, windows=7))
    assert figures == {"clip": 1.23e-06, "buffered": 0.0, "windows": 7, "allowed": 1e-3}
    assert np.isfinite(list(figures.values())).all()
