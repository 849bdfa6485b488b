"""Engine for NVIDIA GPUs. It needs only numpy, tensorrt and pycuda, and runs on Python 3.10 or newer.

    with TensorRTEngine(bundle, precision="fp16") as engine:
        features = engine.features(crops)

The constructor checks for the driver, TensorRT and pycuda, in this order: using a later one without an
earlier one crashes the process. `with` loads the engines from the cache, or builds them.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.engines.interface import Model, check_crops, check_windows, join_finite
from runtime.engines.tensorrt.builder import MAX_BATCH, count_layers, input_profile, load_or_build_engines
from runtime.engines.tensorrt.device import Device
from runtime.engines.tensorrt.driver import NAME, Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey
from runtime.engines.tensorrt.library import library_name, load_pycuda, load_tensorrt
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS, Precision
from runtime.engines.tensorrt.prepared import PARTS
from runtime.engines.tensorrt.runner import EngineRejected, EngineRunner

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from runtime.engines.tensorrt.api import CudaDriver, Pycuda, TensorRT

_log = logging.getLogger(__name__)


class TensorRTEngine:
    """Engine for NVIDIA GPUs; see `runtime.engines.interface.Engine` for the calls.

    Backbone and head have a stream and a lock each, so that neither waits for the other. Batches above
    `MAX_BATCH` run in pieces. Features are copied to the host and back, because the windows of many faces are
    assembled there; a window has some hundred kilobytes, which takes microseconds to copy.

    Args:
        model: A bundle, or the result of `read_prepared`.
        precision: `fp16` or `fp32`; fp16 computes convolutions in float16 and the LSTM in float32.
        cache: The engine cache; None for the user's.
        hardware_compatible: Use engines for all GPUs from Ampere on instead of for this one alone.
        cuda_graphs: Replay CUDA graphs for recurring batch sizes.
        trt: The TensorRT module; None for the installed one.
        cuda: The module `pycuda.driver`; None to import it.
        cuda_driver: The module `cuda.bindings.driver`; None to import it where CUDA graphs need it.
        gpu: The GPU; None to query the driver.

    Raises:
        EngineUnavailable: The driver, a GPU, TensorRT or pycuda is missing.
        ValueError: The precision is unknown.
    """

    name = NAME

    def __init__(
        self,
        model: Model,
        *,
        precision: Precision = "fp16",
        cache: EngineCache | None = None,
        hardware_compatible: bool = False,
        cuda_graphs: bool = True,
        trt: TensorRT | None = None,
        cuda: Pycuda | None = None,
        cuda_driver: CudaDriver | None = None,
        gpu: Gpu | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.gpu = probe() if gpu is None else gpu
        self._trt = load_tensorrt() if trt is None else trt
        self._cuda = load_pycuda() if cuda is None else cuda
        self._cuda_driver = cuda_driver
        self.model = model
        self.precision = precision
        self._cache = EngineCache() if cache is None else cache
        self._hardware_compatible = hardware_compatible
        self._cuda_graphs = cuda_graphs
        self._opening = threading.Lock()
        self._device: Device | None = None
        self._runners: dict[str, EngineRunner] | None = None

    def __enter__(self) -> Self:
        with self._opening:
            if self._runners is not None:
                raise RuntimeError("this engine is open already")
            self._device, self._runners = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opening:
            runners, self._runners = self._runners, None
            device, self._device = self._device, None
            if device is not None:
                _close(device, runners or {})

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_crops(self.model, crops)
        backbone = self._runner("backbone")
        if len(crops) == 0:
            return np.empty((0, self.model.feature_dim), np.float32)
        return join_finite(NAME, [backbone.run(piece) for piece in _pieces(crops)])

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(self.model, windows)
        head = self._runner("head")
        if len(windows) == 0:
            return np.empty(0, np.float32)
        return join_finite(NAME, [head.run(piece) for piece in _pieces(windows)])

    def describe(self) -> str:
        major, minor = self.gpu.cuda
        return f"{library_name(self._trt)} {self.precision} on {self.gpu.name}, CUDA {major}.{minor}"

    def inspect(self) -> dict[str, Any]:
        """Return layer counts of both engines and how CUDA graphs are replayed, for benchmark records.

        Returns:
            `backbone` and `head`, each with the values of `count_layers` and `cuda_graphs`, as JSON values.
        """
        inspected = {}
        for part in PARTS:
            runner = self._runner(part)
            inspected[part] = {**count_layers(runner.inspect()), "cuda_graphs": runner.cuda_graphs}
        return inspected

    def _runner(self, part: str) -> EngineRunner:
        runners = self._runners
        if runners is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return runners[part]

    def _open(self) -> tuple[Device, dict[str, EngineRunner]]:
        engines = self._engines(rebuild=False)
        device = Device(self._cuda)
        runners: dict[str, EngineRunner] = {}
        try:
            try:
                self._load(device, engines, runners)
            except EngineRejected as error:
                # TensorRT may reject an intact engine with the right key: rebuild it once.
                _log.warning("%s: building the engines again", error.reason)
                for runner in runners.values():
                    runner.close()
                runners.clear()
                self._load(device, self._engines(rebuild=True), runners)
        except BaseException:
            _close(device, runners)
            raise
        return device, runners

    def _engines(self, *, rebuild: bool) -> dict[str, tuple[EngineKey, bytes]]:
        return load_or_build_engines(
            self.model,
            precision=self.precision,
            cache=self._cache,
            hardware_compatible=self._hardware_compatible,
            trt=self._trt,
            gpu=self.gpu,
            rebuild=rebuild,
        )

    def _load(
        self, device: Device, engines: dict[str, tuple[EngineKey, bytes]], runners: dict[str, EngineRunner]
    ) -> None:
        dim = self.model.feature_dim
        for part, dtype, output_shape in (("backbone", np.uint8, (dim,)), ("head", np.float32, ())):
            key, engine = engines[part]
            runners[part] = EngineRunner(
                device,
                self._trt,
                engine,
                max_shape=input_profile(self.model, part).max,
                dtype=dtype,
                output_shape=output_shape,
                cuda_graphs=self._cuda_graphs,
                kernel_cache=self._cache.path(key).with_suffix(f".{self.gpu.architecture}.kernels"),
                cuda_driver=self._cuda_driver,
            )


def _close(device: Device, runners: dict[str, EngineRunner]) -> None:
    """Release the runners, then the device, even if one of them fails."""
    with ExitStack() as stack:
        stack.callback(device.close)
        for runner in runners.values():
            stack.callback(runner.close)


def _pieces(batch: NDArray[Any]) -> list[NDArray[Any]]:
    return [batch[start : start + MAX_BATCH] for start in range(0, len(batch), MAX_BATCH)]
