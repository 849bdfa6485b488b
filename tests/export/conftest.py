"""A small detector in torch with every kind of layer that the export treats, and clips to run it on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE = 32
WINDOW = 6
DIM = 64


class SmallBackbone(nn.Module):
    """Convolutions plain, grouped, strided and 1 x 1, a residual, batch normalisation: as in a ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(64)
        self.grouped = nn.Conv2d(64, 256, 5, 2, 2, groups=8, bias=False)
        self.grouped_norm = nn.BatchNorm2d(256)
        self.point = nn.Conv2d(256, DIM, 1, bias=False)
        self.point_norm = nn.BatchNorm2d(DIM)
        self.skip = nn.Conv2d(64, DIM, 3, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, crops: Tensor) -> Tensor:
        x = (crops.float().permute(0, 3, 1, 2) - 127.5) / 64
        x = self.stem_norm(self.stem(x)).relu()
        y = self.grouped_norm(self.grouped(x)).relu()
        y = (self.point_norm(self.point(y)) + self.skip(x)).relu()
        features: Tensor = self.pool(y).flatten(1)
        return features


class SmallHead(nn.Module):
    """An LSTM, the mean over time, a logit."""

    def __init__(
        self, layers: int = 1, *, bidirectional: bool = False, inputs: int = DIM, hidden: int = 64
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(hidden * (1 + bidirectional), 1)

    def forward(self, features: Tensor) -> Tensor:
        states, _ = self.lstm(features)
        logits: Tensor = self.out(self.drop(states.mean(1))).squeeze(-1)
        return logits


class SmallModel(nn.Module):
    """Both parts, as `train.models.detector.ResNeXtLSTM` has them."""

    def __init__(self, layers: int = 1, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.backbone = SmallBackbone()
        self.head = SmallHead(layers, bidirectional=bidirectional)


def make_clips(count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth coloured clips: like crops, neighbouring pixels and frames are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 1, 4, 4, 3)) + rng.integers(-30, 31, (count, WINDOW, 4, 4, 3))
    small: NDArray[np.uint8] = np.clip(coarse, 0, 255).astype(np.uint8)
    return small.repeat(SIZE // 4, 2).repeat(SIZE // 4, 3)


def small_model(layers: int = 1, *, bidirectional: bool = False) -> SmallModel:
    """A seeded small detector with batch statistics as after some training."""
    torch.manual_seed(0)
    model = SmallModel(layers, bidirectional=bidirectional)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None
    model.train()
    with torch.no_grad():
        model.backbone(torch.from_numpy(make_clips(16, 1)).flatten(0, 1))
        model.head.out.weight *= 20
    return model.eval().requires_grad_(False)


@pytest.fixture
def model() -> SmallModel:
    """A small detector of one layer, in evaluation mode."""
    return small_model()
