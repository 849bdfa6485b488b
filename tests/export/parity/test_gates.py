"""The gates pass what is equal and stop what is not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.errors import ParityFailed
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from export.onnx_graph.rounding import round_weights
from export.parity.gates import EngineParity, RoundingParity, engine_parity, report, rounding_parity
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.model.bundle import load_bundle, write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest
from tests.export.conftest import DIM, SIZE, WINDOW, SmallModel, make_clips

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
def stored(model: SmallModel) -> SmallModel:
    """The small detector with int8 weights."""
    stored = copy.deepcopy(model)
    stored.backbone = fold_for_inference(model.backbone, torch.from_numpy(make_clips(1, 0)[0]))
    return stored


@pytest.fixture
def engine(stored: SmallModel, tmp_path: Path) -> Iterator[Engine]:
    weights = round_weights(stored.backbone, stored.head, "int8", None)
    onnx.save(backbone_graph(stored.backbone, SIZE, weights), tmp_path / "backbone.onnx")
    onnx.save(head_graph(stored.head, DIM, weights), tmp_path / "head.onnx")
    write_manifest(tmp_path, MANIFEST)
    with open_engine(load_bundle(tmp_path), "onnxruntime", threads=1) as engine:
        yield engine


def test_the_engine_agrees_on_both_paths(stored: SmallModel, engine: Engine) -> None:
    """Gate A sees every window of the rolling buffer, and both paths within the limit."""
    groups = [make_clips(3, 7), make_clips(1, 8)]
    parity = engine_parity(stored, engine, groups, min_frames=3)
    parity.check()
    assert parity.windows == (3 * WINDOW - 2) + (WINDOW - 2)
    assert parity.clip < 1e-4
    assert parity.buffered < 1e-4


def test_gate_a_stops_a_graph_of_other_weights(stored: SmallModel, engine: Engine) -> None:
    """A thousandth of a logit is enough to be stopped."""
    with torch.no_grad():
        stored.head.out.bias += 2e-3
    parity = engine_parity(stored, engine, [make_clips(1, 7)], min_frames=3)
    with pytest.raises(ParityFailed, match="gate A failed, no bundle was written") as caught:
        parity.check()
    assert caught.value.measured == pytest.approx(2e-3, rel=0.1)


def test_gate_a_stops_what_is_not_a_number() -> None:
    """NaN compares false with everything; it must not pass for that."""
    with pytest.raises(ParityFailed):
        EngineParity(clip=float("nan"), buffered=0.0, windows=1).check()
    with pytest.raises(ParityFailed):
        EngineParity(clip=0.0, buffered=float("inf"), windows=1).check()


def test_gate_b_measures_what_rounding_changes(model: SmallModel, stored: SmallModel) -> None:
    """A shifted logit shows as exactly that shift, and only faces count as verdicts."""
    with torch.no_grad():
        stored.head.out.bias += 0.02
    noise, faces = make_clips(2, 1), [make_clips(3, 2), make_clips(1, 3)]
    calibration = Calibration(scale=2.0)
    parity = rounding_parity(model, stored, noise, faces, calibration=calibration, min_frames=3)
    assert parity.windows == 6 * (WINDOW - 2)
    assert parity.faces == 4 * (WINDOW - 2)
    assert parity.logit_max == pytest.approx(0.02, abs=1e-4)
    assert parity.logit_mean == pytest.approx(0.02, abs=1e-4)
    assert 0 < parity.p_fake_mean <= parity.p_fake_max <= 0.25 * 0.02 / 2 + 1e-5


def test_gate_b_counts_flips_and_states(model: SmallModel, stored: SmallModel) -> None:
    """A bias that moves one clip over one half flips its windows; states are counted beside."""
    clips = make_clips(6, 9)
    with torch.no_grad():
        features = model.backbone(torch.from_numpy(clips).flatten(0, 1)).unflatten(0, (6, WINDOW))
        low, middle, high = (float(z) for z in model.head(features).sort().values[2:5])
        shift = min(middle - low, high - middle)
        stored.head.out.bias += shift
    # One half lies where the shift takes the middle one over it, and no other.
    calibration = Calibration(offset=-(middle + shift / 2))
    parity = rounding_parity(model, stored, clips[:0], [clips], calibration=calibration, min_frames=WINDOW)
    assert parity.flipped == pytest.approx(1 / 6)
    with pytest.raises(ParityFailed, match="flipped") as caught:
        RoundingParity(**{**vars(parity), "p_fake_max": 0.0}).check("try float16")
    assert str(caught.value).endswith("try float16")


def test_gate_b_stops_a_large_change() -> None:
    """More than a hundredth of p_fake is stopped, whatever the verdicts do."""
    figures = {"p_fake_mean": 0.0, "logit_max": 0.1, "logit_mean": 0.0, "states": 0.0}
    fine = RoundingParity(p_fake_max=0.01, flipped=0.005, windows=9, faces=9, **figures)
    fine.check("")
    for bad in (0.0101, float("nan")):
        with pytest.raises(ParityFailed, match="gate B failed"):
            RoundingParity(p_fake_max=bad, flipped=0.0, windows=9, faces=9, **figures).check("")


def test_the_report_is_short_json() -> None:
    """The manifest holds three digits and what was allowed."""
    figures = report(EngineParity(clip=1.23456e-6, buffered=0.0, windows=7))
    assert figures == {"clip": 1.23e-06, "buffered": 0.0, "windows": 7, "allowed": 1e-3}
    assert np.isfinite(list(figures.values())).all()
