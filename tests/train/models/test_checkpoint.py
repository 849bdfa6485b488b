"""Tests of writing and reading checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.model.calibration import Calibration
from train.models.checkpoint import (
    CALIBRATION_FILE,
    CheckpointError,
    load_checkpoint,
    save_calibration,
    save_checkpoint,
)
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM

SMALL = ModelConfig(input_size=32, hidden=8, window=4, min_frames=2)


@pytest.fixture(scope="module")
def model() -> ResNeXtLSTM:
    """Return a small detector with random weights."""
    return ResNeXtLSTM(SMALL).eval()


def test_a_saved_checkpoint_is_loaded_unchanged(model: ResNeXtLSTM, tmp_path: Path) -> None:
    """Weights, sizes and training facts survive; calibration and temporal classifier are absent."""
    clips = torch.randint(0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8)
    save_checkpoint(tmp_path / "run", model, {"seed": 0})
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.training == {"seed": 0}
    assert loaded.model.config == SMALL
    assert loaded.calibration is None
    assert loaded.temporal is None
    with torch.inference_mode():
        assert torch.equal(loaded.model(clips), model(clips))


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    """The error has advice on what to give instead."""
    with pytest.raises(CheckpointError, match="unmask train fit"):
        load_checkpoint(tmp_path)


def test_a_calibration_is_read_back(model: ResNeXtLSTM, tmp_path: Path) -> None:
    """Every field survives, and a broken file is reported with its path."""
    given = Calibration(scale=1.25, offset=-0.5, threshold_fake=0.8, threshold_real=0.2, threshold_fpr1=0.97)
    save_checkpoint(tmp_path, model, {})
    save_calibration(tmp_path, given)
    assert load_checkpoint(tmp_path).calibration == given
    for broken in ("{}", "[", '{"scale": 0}'):
        (tmp_path / CALIBRATION_FILE).write_text(broken)
        with pytest.raises(CheckpointError, match=r"calibration.json.*calibrate the checkpoint again"):
            load_checkpoint(tmp_path)
