"""What every engine takes and gives, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineFailed


class Model(Protocol):
    """Is what an engine needs to know of a bundle; `runtime.bundle.Bundle` has it, and more."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def input_size(self) -> int: ...

    @property
    def feature_dim(self) -> int: ...

    @property
    def window(self) -> int: ...

    @property
    def min_frames(self) -> int: ...

    @property
    def backbone(self) -> Path: ...

    @property
    def head(self) -> Path: ...


def check_crops(model: Model, crops: NDArray[np.uint8]) -> None:
    """Hold crops to the model's input.

    Args:
        model: The model.
        crops: Should be uint8 `(N, H, W, 3)`.

    Raises:
        ValueError: They have another shape or type.
    """
    size = model.input_size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be uint8 (N, {size}, {size}, 3), not {crops.dtype} {crops.shape}")


def check_windows(model: Model, windows: NDArray[np.float32]) -> None:
    """Hold windows to the model's head.

    Args:
        model: The model.
        windows: Should be float32 `(N, T, feature_dim)`, T within `min_frames..window`.

    Raises:
        ValueError: They have another shape or type.
    """
    dim = model.feature_dim
    if windows.dtype != np.float32 or windows.ndim != 3 or windows.shape[2] != dim:
        raise ValueError(f"windows must be float32 (N, T, {dim}), not {windows.dtype} {windows.shape}")
    if not model.min_frames <= windows.shape[1] <= model.window:
        raise ValueError(
            f"windows must hold {model.min_frames} to {model.window} samples, not {windows.shape[1]}"
        )


def finite(engine: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join what an engine gave, if all of it is numbers.

    Args:
        engine: Its name.
        parts: At least one.

    Returns:
        float32, joined along the first axis.

    Raises:
        EngineFailed: A value is not finite.
    """
    output = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not np.isfinite(output).all():
        raise EngineFailed(engine, "it gave values that are not finite numbers")
    return output
