"""Deepfake detector: a ResNeXt-50 computes features of each crop, an LSTM scores a window of features.

    model = ResNeXtLSTM(ModelConfig())
    logit = model(clips)                                  # uint8 (N, T, H, W, 3) -> float32 (N,)
    logit = model.head(model.backbone(crops)[None])       # the same for one clip, crop by crop

Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017 (the backbone,
as in torchvision); Guera & Delp, "Deepfake Video Detection Using Recurrent Neural Networks", AVSS 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d

from train.models.config import ModelConfig

FEATURES = 2048


class Backbone(nn.Module):
    """Feature extractor of single crops: a ResNeXt-50 (32x4d), with the normalisation of its input.

    Attributes:
        widths: Channels of the feature maps of the second, third and fourth stage.
        features: Length of the feature vector.
    """

    mean: Tensor
    deviation: Tensor
    widths = (512, 1024, 2048)
    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        network = resnext50_32x4d(weights=None, zero_init_residual=True)
        network.fc = nn.Identity()
        # Checkpoints and bundles contain the names `trunk`, `mean` and `deviation`.
        self.trunk = network
        # ImageNet statistics, so that pretrained weights given with --init fit.
        self.register_buffer(
            "mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "deviation", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1), persistent=False
        )

    def normalised(self, crops: Tensor) -> Tensor:
        """Return crops uint8 RGB `(N, H, W, 3)` as normalised float32 `(N, 3, H, W)`."""
        return (crops.float().permute(0, 3, 1, 2) - self.mean) / self.deviation

    def stages(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps of the second, third and fourth stage, and the features.

        Args:
            crops: RGB uint8 `(N, H, W, 3)`.

        Returns:
            float32 `(N, 512, H/8, W/8)`, `(N, 1024, H/16, W/16)` and `(N, 2048, H/32, W/32)`; float32
            `(N, 2048)`.
        """
        network = self.trunk
        x = self.normalised(crops).contiguous(memory_format=torch.channels_last)
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        second = network.layer2(network.layer1(x))
        third = network.layer3(second)
        fourth = network.layer4(third)
        return [second, third, fourth], network.avgpool(fourth).flatten(1)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the features, float32 `(N, 2048)`, of crops uint8 RGB `(N, H, W, 3)`."""
        features: Tensor = self.trunk(self.normalised(crops))
        return features


class Head(nn.Module):
    """Classifier of a window of features: LSTM, mean over time, dropout, one logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, config.hidden, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, float32 `(N,)`, of features `(N, T, 2048)`; above 0 is fake."""
        states, _ = self.lstm(features)
        logit: Tensor = self.out(self.dropout(states.mean(1)))
        return logit.squeeze(-1)


class ResNeXtLSTM(nn.Module):
    """Complete detector: backbone and head.

    Args:
        config: Sizes of the detector.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone()
        self.head = Head(config)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits, float32 `(N,)`, of clips uint8 RGB `(N, T, H, W, 3)`; above 0 is fake."""
        features = self.backbone(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        logit: Tensor = self.head(features)
        return logit
