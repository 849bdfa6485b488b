"""Inference engines: what runs the bundle's graphs. All give the same numbers, each at its own speed.

with open_engine(bundle, "auto") as engine:
    features = engine.features(crops)            # once per new crop
    logits = engine.logits(windows)              # once per verdict

Importing this package needs numpy and nothing else: the TensorRT engine lives where little more is installed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runtime.errors import EngineUnavailable, EngineUnknown

if TYPE_CHECKING:
    from runtime.engines.interface import Engine
    from runtime.engines.tensorrt.onnx_rewrite import Precision
    from runtime.model.bundle import Bundle
    from streams.faces.detector import Infer

CHOICES = ("auto", "onnxruntime", "tensorrt")

_log = logging.getLogger(__name__)


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
    from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine

    _known(choice)
    if choice == "onnxruntime":
        return OnnxRuntimeEngine(bundle, threads=threads)

    from runtime.engines.tensorrt.engine import TensorRTEngine

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
        A function from one float32 picture `(1, 3, H, W)` to the outputs, for `streams.faces.detector.Detector`.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: It cannot run here.
    """
    from runtime.engines.onnx_cpu.engine import session_infer
    from streams.faces.detector import centerface_model

    _known(choice)
    if choice == "tensorrt":
        from runtime.engines.tensorrt.driver import probe
        from runtime.engines.tensorrt.library import load_tensorrt

        probe()
        load_tensorrt()
    return session_infer(centerface_model(), threads=threads)


def _known(choice: str) -> None:
    if choice not in CHOICES:
        raise EngineUnknown(choice, CHOICES)
