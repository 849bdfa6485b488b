"""The GPU engine: TensorRT through pycuda. Needs numpy, tensorrt and pycuda, and Python 3.10 or newer.

    with TensorRTEngine(bundle, precision="fp16") as engine:
        features = engine.features(crops)

Making the engine finds out whether it can run: driver, TensorRT, pycuda, in this order, since the later ones
end the process where the earlier are missing. Opening it takes the engines from the cache, or builds them.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.engines.interface import Model, check_crops, check_windows, finite
from runtime.engines.tensorrt.builder import MAX_BATCH, count_layers, input_profile, load_or_build_engines
from runtime.engines.tensorrt.driver import NAME, Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey
from runtime.engines.tensorrt.library import library_name, load_pycuda, load_tensorrt
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS, Precision
from runtime.engines.tensorrt.runner import Device, EngineRejected, EngineRunner

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


class TensorRTEngine:
    """Runs a model on an NVIDIA GPU; see `runtime.engines.factory.Engine` for the calls.

    Backbone and head have a stream and a lock each, so that one does not wait for the other. Batches above
    `MAX_BATCH` go in pieces. Features come down to the host and go up again as windows: the windows are made
    there, of many faces at once, and one is some hundred kilobytes, microseconds of the bus.

    Args:
        model: A bundle, or what `read_prepared` gave.
        precision: `fp16` or `fp32`; fp16 computes convolutions in float16 and sums in float32.
        cache: Where engines are kept; None for the user's cache.
        hardware_compatible: Use engines for all GPUs from Ampere on, not for this one alone.
        cuda_graphs: Replay CUDA graphs of batch sizes that recur.
        trt: The TensorRT module; None for the one that is installed.
        cuda: The module `pycuda.driver`; None to import it.
        gpu: The GPU; None to ask the driver.

    Raises:
        EngineUnavailable: There is no driver, no GPU, no TensorRT or no pycuda.
        ValueError: There is no such precision.
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
        trt: Any = None,
        cuda: Any = None,
        gpu: Gpu | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.gpu = probe() if gpu is None else gpu
        self._trt = load_tensorrt() if trt is None else trt
        self._cuda = load_pycuda() if cuda is None else cuda
        self.model = model
        self.precision = precision
        self._cache = EngineCache() if cache is None else cache
        self._hardware_compatible = hardware_compatible
        self._cuda_graphs = cuda_graphs
        self._opening = threading.Lock()
        self._device: Device | None = None
        self._networks: dict[str, EngineRunner] | None = None

    def __enter__(self) -> Self:
        with self._opening:
            if self._networks is not None:
                raise RuntimeError("this engine is open already")
            self._device, self._networks = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opening:
            networks, self._networks = self._networks, None
            device, self._device = self._device, None
            if device is not None:
                _close(device, networks or {})

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_crops(self.model, crops)
        backbone = self._network("backbone")
        if len(crops) == 0:
            return np.empty((0, self.model.feature_dim), np.float32)
        return finite(NAME, [backbone.run(piece) for piece in _pieces(crops)])

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(self.model, windows)
        head = self._network("head")
        if len(windows) == 0:
            return np.empty(0, np.float32)
        return finite(NAME, [head.run(piece) for piece in _pieces(windows)])

    def describe(self) -> str:
        major, minor = self.gpu.cuda
        return f"{library_name(self._trt)} {self.precision} on {self.gpu.name}, CUDA {major}.{minor}"

    def inspect(self) -> dict[str, Any]:
        """Count the layers of both engines by kind and format, and say how CUDA graphs are replayed.

        Returns:
            `backbone` and `head`, as JSON values.
        """
        found = {}
        for part in ("backbone", "head"):
            network = self._network(part)
            found[part] = {**count_layers(network.inspect()), "cuda_graphs": network.cuda_graphs}
        return found

    def _network(self, part: str) -> EngineRunner:
        networks = self._networks
        if networks is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return networks[part]

    def _open(self) -> tuple[Device, dict[str, EngineRunner]]:
        engines = self._engines(rebuild=False)
        device = Device(self._cuda)
        networks: dict[str, EngineRunner] = {}
        try:
            try:
                self._load(device, engines, networks)
            except EngineRejected as error:
                # The key fits and the file is whole, and still it is not taken: once more from the start.
                _log.warning("%s: building the engines again", error.reason)
                for network in networks.values():
                    network.close()
                networks.clear()
                self._load(device, self._engines(rebuild=True), networks)
        except BaseException:
            _close(device, networks)
            raise
        return device, networks

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
        self, device: Device, engines: dict[str, tuple[EngineKey, bytes]], networks: dict[str, EngineRunner]
    ) -> None:
        dim = self.model.feature_dim
        for part, dtype, given in (("backbone", np.uint8, (dim,)), ("head", np.float32, ())):
            key, engine = engines[part]
            networks[part] = EngineRunner(
                device,
                self._trt,
                engine,
                largest=input_profile(self.model, part).largest,
                dtype=dtype,
                given=given,
                cuda_graphs=self._cuda_graphs,
                kernels=self._cache.path(key).with_suffix(f".{self.gpu.architecture}.kernels"),
            )


def _close(device: Device, networks: dict[str, EngineRunner]) -> None:
    """Give everything back, the device last, whatever fails on the way."""
    with ExitStack() as stack:
        stack.callback(device.close)
        for network in networks.values():
            stack.callback(network.close)


def _pieces(batch: NDArray[Any]) -> list[NDArray[Any]]:
    return [batch[start : start + MAX_BATCH] for start in range(0, len(batch), MAX_BATCH)]
