"""A bundle and a module in torch are scored through one interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.model.calibration import Calibration
from train.scoring.scorer import module_scorer, open_scorer


class Backbone(nn.Module):
    """Means of the channels, dropped out in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, crops: Tensor) -> Tensor:
        """Give (N, 3) from (N, H, W, 3)."""
        means: Tensor = self.drop(crops.float().mean(dim=(1, 2)))
        return means


class Head(nn.Module):
    """An LSTM, the mean over time, a logit."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Give (N,) from (N, T, 3)."""
        states, _ = self.lstm(features)
        logit: Tensor = self.out(states.mean(1)).squeeze(-1)
        return logit


class Both(nn.Module):
    """The two parts under the names that a model has them by."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = Head()


FACTS = {
    "name": "both",
    "identity": "test",
    "input_size": 16,
    "crop_margin": 1.3,
    "sample_hz": 8.0,
    "window": 4,
    "min_frames": 2,
}


def test_a_module_scores_in_evaluation_mode_and_goes_on_training() -> None:
    """Dropout is off within a call, no gradient is kept, and training mode is as it was."""
    torch.manual_seed(0)
    module = Both().train()
    module.head.eval()
    scorer = module_scorer(module, **FACTS)  # type: ignore[arg-type]
    crops = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    first, again = scorer.features(crops), scorer.features(crops)
    np.testing.assert_array_equal(first, again)
    assert first == pytest.approx(crops.mean(axis=(1, 2)), rel=1e-5)
    logits = scorer.logits(np.stack([first[:4], first[1:]]))
    assert logits.shape == (2,)
    assert logits.dtype == np.float32
    assert module.training
    assert module.backbone.drop.training
    assert not module.head.lstm.training


def test_a_module_without_the_two_parts_is_refused() -> None:
    """Only what has a backbone and a head can be scored live."""
    with pytest.raises(AttributeError, match="backbone"):
        module_scorer(nn.Linear(1, 1), **FACTS)  # type: ignore[arg-type]


def test_a_bundle_is_scored_by_the_engine_that_runs_it_live(dark_bundle: Path) -> None:
    """It comes with its own calibration and says what runs it."""
    with open_scorer(dark_bundle) as scorer:
        assert (scorer.window, scorer.min_frames, scorer.sample_hz) == (8, 4, 10)
        assert scorer.calibration == Calibration(
            scale=2.0, offset=0.5, threshold_fake=0.7, threshold_real=0.3
        )
        assert "onnxruntime" in scorer.identity
        black = scorer.features(np.zeros((4, 32, 32, 3), np.uint8))
        assert scorer.logits(black[None]) == pytest.approx([10.0], abs=1e-3)
