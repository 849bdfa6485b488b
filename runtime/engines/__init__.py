"""Inference engines: what runs the bundle's graphs. All give the same numbers, each at its own speed.

with open_engine(bundle, "auto") as engine:
    features = engine.features(crops)            # once per new crop
    logits = engine.logits(windows)              # once per verdict
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import EngineUnavailable, EngineUnknown
from streams.detector import Infer, centerface_model

CHOICES = ("auto", "onnxruntime", "tensorrt")

_log = logging.getLogger(__name__)


@runtime_checkable
class Engine(Protocol):
    """Runs a bundle's backbone and head; memory and threads are held only inside its `with` block.

    Both calls may come from any thread, also at once.
    """

    name: str

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


def open_engine(bundle: Bundle, choice: str = "auto", *, threads: int | None = None) -> Engine:
    """Make the engine for a bundle; it loads on `with`.

    Args:
        bundle: The model.
        choice: `onnxruntime` (CPU, always there), `tensorrt` (NVIDIA GPU), or `auto` for the fastest that can
            run; what `auto` chose and why is logged.
        threads: CPU threads; None for the cores that this process may use, up to eight.

    Returns:
        The engine.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: It cannot run here.
    """
    # Imported late: `unmask --help` and the error for a wrong name need no inference library.
    from runtime.engines.onnxruntime import OnnxRuntimeEngine

    _runnable(choice)
    engine = OnnxRuntimeEngine(bundle, threads=threads)
    if choice == "auto":
        _log.info("engine: %s (auto: %s)", engine.describe(), _NO_TENSORRT)
    return engine


def detector_infer(choice: str = "auto", *, threads: int | None = None) -> Infer:
    """Load the face detector's network.

    Args:
        choice: As for `open_engine`.
        threads: CPU threads; None for the cores that this process may use, up to four.

    Returns:
        A function from one float32 picture `(1, 3, H, W)` to the outputs, for `streams.detector.Detector`.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: It cannot run here.
    """
    from runtime.engines.onnxruntime import session_infer

    _runnable(choice)
    return session_infer(centerface_model(), threads=threads)


_NO_TENSORRT = "this version of unmask has no TensorRT engine"


def _runnable(choice: str) -> None:
    if choice not in CHOICES:
        raise EngineUnknown(choice, CHOICES)
    if choice == "tensorrt":
        raise EngineUnavailable("tensorrt", _NO_TENSORRT, "use --engine onnxruntime or --engine auto")
