"""Interface of the inference engines, and the checks of their inputs and outputs."""

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
    """Backbone and head of a bundle, with memory and threads allocated inside a `with` block only.

    `features` and `logits` may be called from any thread, also at the same time.
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
            EngineFailed: The engine failed.
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
            EngineFailed: The engine failed.
        """
        ...

    def describe(self) -> str:
        """Return the library, its version and the device in one line."""
        ...


class Model(Protocol):
    """Properties of a bundle that an engine needs; implemented by `runtime.model.bundle.Bundle`."""

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
    """Check the shape and type of crops.

    Args:
        model: The model that they are for.
        crops: Expected to be uint8 `(N, input_size, input_size, 3)`.

    Raises:
        ValueError: They have another shape or type.
    """
    size = model.input_size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be uint8 (N, {size}, {size}, 3), not {crops.dtype} {crops.shape}")


def check_windows(model: Model, windows: NDArray[np.float32]) -> None:
    """Check the shape and type of windows.

    Args:
        model: The model that they are for.
        windows: Expected to be float32 `(N, T, feature_dim)`, T within `min_frames..window`.

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
    """Concatenate the outputs of an engine and check that they are finite.

    Args:
        engine: Name of the engine.
        parts: At least one array.

    Returns:
        float32, joined along the first axis.

    Raises:
        EngineFailed: A value is not finite.
    """
    output = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not np.isfinite(output).all():
        raise EngineFailed(engine, "it returned values that are not finite numbers")
    return output
