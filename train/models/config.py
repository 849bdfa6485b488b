"""Sizes of the detector."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from train.checked_config import CheckedConfig, CropSize, ShareBelowOne
from train.errors import ConfigInvalid


class ModelConfig(CheckedConfig, frozen=True, kw_only=True):
    """Sizes of the detector and of its input.

    Args:
        input_size: Side of the square crop in pixels.
        crop_margin: Side of the crop as a multiple of the face box height.
        sample_hz: Crops of a face per second.
        window: Maximum number of crops per prediction.
        min_frames: Minimum number of crops per prediction.
        feature_every: In live use, samples from one that goes through the backbone, and whose temporal
            residuals are measured, to the next.
        hidden: Width of the LSTM.
        layers: Number of LSTM layers.
        dropout: Dropout rate of the pooled LSTM state, 0..1.

    Raises:
        ConfigInvalid: A value is out of its range.
    """

    input_size: CropSize = 160
    crop_margin: Annotated[float, Meta(ge=0.5, le=4)] = 1.02
    sample_hz: Annotated[float, Meta(ge=1, le=120)] = 8.0
    window: Annotated[int, Meta(ge=1, le=10_000)] = 16
    min_frames: int = 4
    feature_every: int = 2
    hidden: Annotated[int, Meta(ge=1, le=65536)] = 512
    layers: Annotated[int, Meta(ge=1, le=64)] = 1
    dropout: ShareBelowOne = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_frames <= self.window:
            raise ConfigInvalid(f"min_frames must be within 1..window, not {self.min_frames}")
        if not 1 <= self.feature_every <= self.window:
            raise ConfigInvalid(f"feature_every must be within 1..window, not {self.feature_every}")


ORIGINAL = ModelConfig(input_size=112, window=80, min_frames=10, feature_every=1, hidden=2048, dropout=0.4)
"""Sizes of the original pipeline that the benchmarks compare with."""
