"""A bundle and a torch module are scored through the same interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.model.calibration import Calibration
from train.scoring.scorer import module_functions, open_scorer


class Backbone(nn.Module):
    """Mean of each channel, with dropout in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, crops: Tensor) -> Tensor:
        """Return (N, 3) from (N, H, W, 3)."""
        means: Tensor = self.drop(crops.float().mean(dim=(1, 2)))
        return means


class Head(nn.Module):
    """LSTM, mean over time, one logit."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N,) from (N, T, 3)."""
        states, _ = self.lstm(features)
        logit: Tensor = self.out(states.mean(1)).squeeze(-1)
        return logit


class Detector(nn.Module):
    """Both parts under the names that the detector uses."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = Head()


def test_module_runs_in_evaluation_mode_and_keeps_its_training_modes() -> None:
    """Dropout is off within a call; afterwards every module's training mode is as before."""
    torch.manual_seed(0)
    module = Detector().train()
    module.head.eval()
    features_of, logits_of = module_functions(module)
    crops = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    first, again = features_of(crops), features_of(crops)
    np.testing.assert_array_equal(first, again)
    assert first == pytest.approx(crops.mean(axis=(1, 2)), rel=1e-5)
    logits = logits_of(np.stack([first[:4], first[1:]]))
    assert logits.shape == (2,)
    assert logits.dtype == np.float32
    assert module.training
    assert module.backbone.drop.training
    assert not module.head.lstm.training


def test_module_without_backbone_is_refused() -> None:
    """A module needs a backbone and a head."""
    with pytest.raises(AttributeError, match="backbone"):
        module_functions(nn.Linear(1, 1))


def test_bundle_is_scored_by_the_live_engine(dark_bundle: Path) -> None:
    """The scorer has the bundle's own calibration and names the engine."""
    with open_scorer(dark_bundle) as scorer:
        assert (scorer.window, scorer.min_frames, scorer.sample_hz) == (8, 4, 10)
        assert scorer.calibration == Calibration(
            scale=2.0, offset=0.5, threshold_fake=0.7, threshold_real=0.3
        )
        assert "onnxruntime" in scorer.identity
        black = scorer.features(np.zeros((4, 32, 32, 3), np.uint8))
        assert scorer.logits(black[None]) == pytest.approx([10.0], abs=1e-3)
