"""The smallest detector and run that the training accepts."""

from __future__ import annotations

from train.fitting.config import FitConfig
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig

TINY_MODEL = ModelConfig(input_size=32, hidden=8, window=4, min_frames=2)
TINY_RUN = FitConfig(
    sampling=SamplingConfig(sizes=(32,), crops=(24,), batch_size=8),
    warmup_steps=2,
    clip_passes=1,
    head_steps=3,
    precision="32-true",
    val_groups=("kept-out",),
)
