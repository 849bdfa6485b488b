"""The detector: a ResNeXt-50 sees each crop once, an LSTM judges the last seconds of what it saw.

    model = ResNeXtLSTM(ModelConfig())
    logit = model(clips)                                  # uint8 (N, T, H, W, 3) -> float32 (N,)
    logit = model.head(model.backbone(crops)[None])       # the same, crop by crop

Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017 (the trunk,
as in torchvision); Guera & Delp, "Deepfake Video Detection Using Recurrent Neural Networks", AVSS 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d

from train.models.config import ModelConfig

FEATURES = 2048


class Backbone(nn.Module):
    """Turns crops into features: a ResNeXt-50 (32x4d) trunk with its normalisation inside."""

    mean: Tensor
    deviation: Tensor
    widths = (512, 1024, 2048)
    """Channels of the maps of the second, third and fourth stage."""
    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        trunk = resnext50_32x4d(weights=None, zero_init_residual=True)
        trunk.fc = nn.Identity()
        self.trunk = trunk
        # The usual ImageNet statistics, so that pretrained weights given with --init fit.
        self.register_buffer(
            "mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "deviation", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1), persistent=False
        )

    def normalised(self, crops: Tensor) -> Tensor:
        """Turn crops uint8 RGB (N, H, W, 3) into what the trunk takes, float32 (N, 3, H, W)."""
        return (crops.float().permute(0, 3, 1, 2) - self.mean) / self.deviation

    def stages(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """Turn crops into the maps of the second, third and fourth stage, and features.

        Args:
            crops: What `forward` takes.

        Returns:
            float32 (N, 512, H/8, W/8), (N, 1024, H/16, W/16), (N, 2048, H/32, W/32), and (N, 2048).
        """
        trunk = self.trunk
        x = self.normalised(crops).contiguous(memory_format=torch.channels_last)
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        second = trunk.layer2(trunk.layer1(x))
        third = trunk.layer3(second)
        fourth = trunk.layer4(third)
        return [second, third, fourth], trunk.avgpool(fourth).flatten(1)

    def forward(self, crops: Tensor) -> Tensor:
        """Turn crops uint8 RGB (N, H, W, 3) into features (N, 2048)."""
        features: Tensor = self.trunk(self.normalised(crops))
        return features


class Head(nn.Module):
    """Judges a window of features: LSTM, mean over time, dropout, one logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, config.hidden, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (N, T, 2048) into logits (N,); above 0 is fake."""
        states, _ = self.lstm(features)
        logit: Tensor = self.out(self.dropout(states.mean(1)))
        return logit.squeeze(-1)


class ResNeXtLSTM(nn.Module):
    """The whole detector.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone()
        self.head = Head(config)

    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips uint8 RGB (N, T, H, W, 3) into logits (N,); above 0 is fake."""
        features = self.backbone(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        logit: Tensor = self.head(features)
        return logit
