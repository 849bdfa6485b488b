"""Tests of the detector: its recurrence is over time, not over the batch."""

from __future__ import annotations

import pytest
import torch

from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM

SMALL = ModelConfig(input_size=32, hidden=16, window=4, min_frames=2)


@pytest.fixture(scope="module")
def model() -> ResNeXtLSTM:
    """Return a seeded detector whose residual branches are not zero."""
    torch.manual_seed(0)
    network = ResNeXtLSTM(SMALL)
    for name, value in network.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.constant_(value, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Return three clips of four frames."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_the_order_of_frames_matters(model: ResNeXtLSTM, clips: torch.Tensor) -> None:
    """A reversed clip has another logit."""
    with torch.inference_mode():
        assert not torch.allclose(model(clips), model(clips.flip(1)), atol=1e-6)


def test_the_order_of_the_batch_does_not_matter(model: ResNeXtLSTM, clips: torch.Tensor) -> None:
    """A clip has the same logit at any position in a batch, and alone."""
    with torch.inference_mode():
        logits = model(clips)
        assert torch.allclose(model(clips.flip(0)).flip(0), logits, atol=1e-5)
        assert torch.allclose(model(clips[1:2]), logits[1:2], atol=1e-5)


def test_single_crops_give_the_same_logit_as_the_clip(model: ResNeXtLSTM, clips: torch.Tensor) -> None:
    """Features computed crop by crop give the logit of the whole clip."""
    with torch.inference_mode():
        features = torch.cat([model.backbone(crop[None]) for crop in clips[0]])
        assert torch.allclose(model.head(features[None]), model(clips[:1]), atol=1e-5)
