"""Choice of the inference engine that runs a bundle's graphs.

    with open_engine(bundle, "auto") as engine:
        features = engine.features(crops)            # once per new crop
        logits = engine.logits(windows)              # once per verdict

Importing this module needs numpy only, as the TensorRT engine runs where little else is installed.
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

CHOICES = ("auto", "onnxruntime", "openvino", "tensorrt")
CPU_ENGINES = ("onnxruntime", "openvino")

_log = logging.getLogger(__name__)


def open_engine(
    bundle: Bundle,
    choice: str = "auto",
    *,
    threads: int | None = None,
    precision: Precision = "fp16",
    gpu: bool = True,
) -> Engine:
    """Return the engine for a bundle; it loads inside a `with` block.

    Args:
        bundle: The model.
        choice: `onnxruntime` (CPU), `openvino` (CPU with VNNI or AMX), `tensorrt` (NVIDIA GPU), or `auto` for
            the fastest that can run. The choice of `auto` and its reason are logged. `auto` continues with
            onnxruntime if another engine fails.
        threads: Threads of onnxruntime and OpenVINO; None for the cores that this process may use, up to
            eight.
        precision: Precision of TensorRT, `fp16` or `fp32`.
        gpu: Whether `auto` may use a GPU.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: The engine cannot run on this machine.
    """
    # Imported late: `unmask --help` and the error for a wrong name need no inference library.
    from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
    from runtime.engines.openvino import OpenVinoEngine

    _check_choice(choice)
    if choice == "onnxruntime":
        return OnnxRuntimeEngine(bundle, threads=threads)
    if choice == "openvino":
        return OpenVinoEngine(bundle, threads=threads)

    from runtime.engines.tensorrt.engine import TensorRTEngine

    if choice == "tensorrt":
        return TensorRTEngine(bundle, precision=precision)
    # Created first, so that a wrong number of threads is an error on machines with a GPU too.
    on_cpu = OnnxRuntimeEngine(bundle, threads=threads)
    from runtime.engines.fallback import FallbackEngine

    missing = "without a GPU"
    if gpu:
        try:
            on_gpu = TensorRTEngine(bundle, precision=precision)
        except EngineUnavailable as error:
            missing = f"no TensorRT, {error.reason}"
        else:
            _log.info("engine: %s (auto: a GPU and TensorRT are available)", on_gpu.describe())
            return FallbackEngine(on_gpu, lambda: on_cpu)
    try:
        int8 = OpenVinoEngine(bundle, threads=threads)
    except EngineUnavailable as error:
        _log.info("engine: %s (auto: %s; no OpenVINO, %s)", on_cpu.describe(), missing, error.reason)
        return on_cpu
    _log.info("engine: %s (auto: %s)", int8.describe(), missing)
    return FallbackEngine(int8, lambda: on_cpu)


def detector_infer(choice: str = "auto", *, threads: int | None = None) -> Infer:
    """Load the face detector's network.

    It always runs on the CPU. Its input has the size of the frame, and a TensorRT engine for each size would
    take longer to build than it saves.

    Args:
        choice: As for `open_engine`; an engine that cannot run is refused before anything is loaded.
        threads: CPU threads; one when None.

    Returns:
        A function from one float32 image `(1, 3, H, W)` to the network's outputs, for
        `streams.faces.detector.Detector`.

    Raises:
        EngineUnknown: There is no engine of this name.
        EngineUnavailable: The engine cannot run on this machine.
    """
    from runtime.engines.onnx_cpu.engine import session_infer
    from streams.faces.detector import centerface_model

    _check_choice(choice)
    if choice == "tensorrt":
        from runtime.engines.tensorrt.driver import probe
        from runtime.engines.tensorrt.library import load_tensorrt

        probe()
        load_tensorrt()
    return session_infer(centerface_model(), threads=threads)


def _check_choice(choice: str) -> None:
    if choice not in CHOICES:
        raise EngineUnknown(choice, CHOICES)
