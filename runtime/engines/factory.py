"""Inference engines: what runs the bundle's graphs. All give the same numbers, each at its own speed.

with open_engine(bundle, "auto") as engine:
    features = engine.features(crops)            # once per new crop
    logits = engine.logits(windows)              # once per verdict

Importing this package needs numpy and nothing else: the TensorRT engine lives where little more is installed.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineUnavailable, EngineUnknown

if TYPE_CHECKING:
    from typing import Self

    from runtime.bundle import Bundle
    from runtime.engines.graphs import Precision
    from streams.detector import Infer

CHOICES = ("auto", "onnxruntime", "tensorrt")

_log = logging.getLogger(__name__)


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


def open_engine(
    bundle: Bundle, choice: str = "auto", *, threads: int | None = None, precision: Precision = "fp16"
) -> Engine:
    """Make the engine for a bundle; it loads on `with`.

    Args:
        bundle: The model.
        choice: `onnxruntime` (CPU, always there), `tensorrt` (NVIDIA GPU), or `auto` for the fastest that can
            run; what `auto` chose and why is logged. `auto` goes on with onnxruntime if TensorRT breaks.
        threads: CPU threads of onnxruntime; None for the cores that this process may use, up to eight.
        precision: Of TensorRT, `fp16` or `fp32`.

    Returns:
        The engine.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: It cannot run here.
    """
    # Imported late: `unmask --help` and the error for a wrong name need no inference library.
    from runtime.engines.onnxruntime import OnnxRuntimeEngine

    _known(choice)
    if choice == "onnxruntime":
        return OnnxRuntimeEngine(bundle, threads=threads)

    from runtime.engines.tensorrt import TensorRTEngine

    if choice == "tensorrt":
        return TensorRTEngine(bundle, precision=precision)
    # Made in any case: a wrong number of threads is a mistake wherever the program runs.
    on_cpu = OnnxRuntimeEngine(bundle, threads=threads)
    try:
        on_gpu = TensorRTEngine(bundle, precision=precision)
    except EngineUnavailable as error:
        _log.info("engine: %s (auto: no TensorRT, %s)", on_cpu.describe(), error.reason)
        return on_cpu
    from runtime.engines.fallback import FallbackEngine

    _log.info("engine: %s (auto: a GPU and TensorRT are there)", on_gpu.describe())
    return FallbackEngine(on_gpu, lambda: on_cpu)


def detector_infer(choice: str = "auto", *, threads: int | None = None) -> Infer:
    """Load the face detector's network.

    It runs on the CPU with every choice: it takes pictures of any size, one at a time and rarely, and an
    engine for each size would cost more than it saves.

    Args:
        choice: As for `open_engine`; what cannot run is refused here too, before anything is loaded.
        threads: CPU threads; one when None.

    Returns:
        A function from one float32 picture `(1, 3, H, W)` to the outputs, for `streams.detector.Detector`.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: It cannot run here.
    """
    from runtime.engines.onnxruntime import session_infer
    from streams.detector import centerface_model

    _known(choice)
    if choice == "tensorrt":
        from runtime.engines.driver import probe
        from runtime.engines.library import load_tensorrt

        probe()
        load_tensorrt()
    return session_infer(centerface_model(), threads=threads)


def _known(choice: str) -> None:
    if choice not in CHOICES:
        raise EngineUnknown(choice, CHOICES)
