"""What every engine takes and gives, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineFailed

if TYPE_CHECKING:
    from typing import Self


@runtime_checkable
class Engine(Protocol):
    """Runs a bundle's backbone and head; memory and threads are held only inside its `with` block.

    Both calls may come from any thread, also at once.
    """

    @property
    def name(self) -> str: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone.

        Args:
            crops: uint8 RGB `(N, H, W, 3)` of the bundle's input size; N may be 0.

        Returns:
            float32 `(N, feature_dim)`.

        Raises:
            ValueError: The crops have another shape or type.
            EngineFailed: The engine broke.
        """
        ...

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the head.

        Args:
            windows: float32 `(N, T, feature_dim)`, oldest first, T within `min_frames..window`; N may be 0.

        Returns:
            Uncalibrated logits, float32 `(N,)`, all finite.

        Raises:
            ValueError: The windows have another shape or type.
            EngineFailed: The engine broke.
        """
        ...

    def describe(self) -> str:
        """Name the library, its version and the device in one line."""
        ...


class Model(Protocol):
    """Is what an engine needs to know of a bundle; `runtime.model.bundle.Bundle` has it, and more."""

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


def join_finite(engine: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
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
