"""A weight as a bundle stores it: int8 with one scale per output channel, or float16."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Smaller tensors stay float32, the first convolution among them: together a few hundred kilobytes.
MIN_STORED = 16_384
INT8_MAX = 127


@dataclass(frozen=True)
class StoredWeight:
    """Weight in its stored type.

    Args:
        values: int8 or float16.
        scale: float32, one per output channel; None for float16.
        axis: Axis of the output channels.
    """

    values: NDArray[np.int8] | NDArray[np.float16]
    scale: NDArray[np.float32] | None = None
    axis: int = 0

    def restored(self) -> NDArray[np.float32]:
        """Return the float32 weight that the engines compute with, bit for bit."""
        wide = self.values.astype(np.float32)
        if self.scale is None:
            return wide
        shape = [1] * wide.ndim
        shape[self.axis] = -1
        return wide * self.scale.reshape(shape)


def channel_scale(*weights: Tensor) -> Tensor:
    """Return the int8 step of each output channel, so that its largest weight is 127 steps.

    Args:
        weights: float32 tensors of one shape, output channels first; they share the scale.

    Returns:
        float32, one value above 0 per channel.
    """
    largest = torch.stack([weight.abs().flatten(1).amax(1) for weight in weights]).amax(0)
    # A channel of zeros can have any scale but zero.
    return torch.where(largest > 0, largest / INT8_MAX, torch.ones_like(largest))
