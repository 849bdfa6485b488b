"""The detector: a ResNeXt-50 sees each crop once, an LSTM judges the last seconds of what it saw.

    model = ResNeXtLSTM(ModelConfig())
    logit = model(clips)                                  # uint8 (N, T, H, W, 3) -> float32 (N,)
    logit = model.head(model.backbone(crops)[None])       # the same, crop by crop

Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017 (the trunk,
as in torchvision); Guera & Delp, "Deepfake Video Detection Using Recurrent Neural Networks", AVSS 2018.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d

from runtime.model.temporal_classifier import TEMPORAL_FILE
from train.fitting.calibration import CALIBRATION

FEATURES = 2048
WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class CheckpointError(ValueError):
    """Says that a directory holds no usable checkpoint.

    Args:
        path: The directory or the file at fault.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give the directory that `unmask train fit` wrote"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """States the network's sizes and what its crops are.

    Args:
        input_size: Side of the square crop in pixels.
        crop_margin: Side of the crop as a multiple of the face box's height.
        sample_hz: Crops of a face per second.
        window: The most crops that are judged at once.
        min_frames: The fewest.
        hidden: Width of the LSTM.
        layers: How many LSTM layers.
        dropout: Share of the pooled state that is dropped in training.

    Raises:
        ValueError: A value is out of its range.
    """

    input_size: int = 160
    crop_margin: float = 1.02
    sample_hz: float = 8.0
    window: int = 16
    min_frames: int = 4
    hidden: int = 512
    layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.input_size < 32:
            raise ValueError(f"input_size must be at least 32, not {self.input_size}")
        if not 1 <= self.min_frames <= self.window:
            raise ValueError(f"min_frames must be within 1..window, not {self.min_frames}")
        if self.hidden < 1 or self.layers < 1 or not 0 <= self.dropout < 1:
            raise ValueError("hidden and layers must be positive, dropout within 0..1")


ORIGINAL = ModelConfig(input_size=112, window=80, min_frames=10, hidden=2048, dropout=0.4)
"""The sizes of the pipeline that unmask set out to beat."""


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


def save_checkpoint(folder: Path, model: ResNeXtLSTM, training: Mapping[str, Any]) -> None:
    """Write weights and configuration; what was fitted to other weights there goes.

    Args:
        folder: Is made if it is missing.
        model: The detector.
        training: How it was trained, as JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for fitted in (CALIBRATION, TEMPORAL_FILE):
        (folder / fitted).unlink(missing_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    about = {"model": asdict(model.config), "training": dict(training)}
    (folder / CONFIG).write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a directory holds a checkpoint."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load_checkpoint(folder: Path) -> tuple[ResNeXtLSTM, dict[str, Any]]:
    """Read a checkpoint.

    Args:
        folder: What `save_checkpoint` wrote.

    Returns:
        The detector in evaluation mode, and how it was trained.

    Raises:
        CheckpointError: A file is missing or is not what `save_checkpoint` writes.
    """
    if not is_checkpoint(folder):
        raise CheckpointError(folder, f"holds no {CONFIG} and {WEIGHTS}")
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = ModelConfig(**{field.name: about["model"][field.name] for field in fields(ModelConfig)})
        model = ResNeXtLSTM(config)
        model.load_state_dict(load_file(folder / WEIGHTS))
        return model.eval(), dict(about["training"])
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, f"cannot be read ({type(error).__name__})") from error
