"""Sizes of the detector."""

from __future__ import annotations

from dataclasses import dataclass

from train.errors import ConfigInvalid


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
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

    input_size: int = 160
    crop_margin: float = 1.02
    sample_hz: float = 8.0
    window: int = 16
    min_frames: int = 4
    feature_every: int = 2
    hidden: int = 512
    layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.input_size < 32:
            raise ConfigInvalid(f"input_size must be at least 32, not {self.input_size}")
        if not 1 <= self.min_frames <= self.window:
            raise ConfigInvalid(f"min_frames must be within 1..window, not {self.min_frames}")
        if not 1 <= self.feature_every <= self.window:
            raise ConfigInvalid(f"feature_every must be within 1..window, not {self.feature_every}")
        if self.hidden < 1 or self.layers < 1 or not 0 <= self.dropout < 1:
            raise ConfigInvalid("hidden and layers must be positive, dropout within 0..1")


ORIGINAL = ModelConfig(input_size=112, window=80, min_frames=10, feature_every=1, hidden=2048, dropout=0.4)
"""Sizes of the original pipeline that the benchmarks compare with."""
