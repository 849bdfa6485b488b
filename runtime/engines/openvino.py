"""Inference engine for CPUs with VNNI or AMX: the backbone in int8 by OpenVINO, the head by onnxruntime.

Both libraries run the same rewritten graph; onnxruntime does not use AMX for it. Measured with ResNeXt-50 at
160 pixels on one core of a Xeon, whose wider instructions were hidden from the libraries for the other rows
(milliseconds of CPU time per crop, alone / in a batch of four):

                                      onnxruntime     OpenVINO
    int8, AMX                         12.5 / 11.5     3.8 / 3.6
    int8, AVX-512 and VNNI            12.5 / 11.5     8.7 / 7.1
    float32, AVX2                     43.1 / 42.8     48.4 / 44.6
    int8, AVX2, sums saturate         27.8 / 26.2     25.4 / 22.8
    int8, AVX2, 16-bit products       44.9 / 38.4     -

Without VNNI, int8 is either wrong or no faster than float32, so that this engine is refused there.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.interface import check_crops, join_finite
from runtime.engines.onnx_cpu.engine import (
    GraphLoader,
    OnnxRuntimeEngine,
    Precision,
    count_threads,
    rewritten,
)
from runtime.engines.onnx_cpu.graph_cache import GraphCache
from runtime.errors import EngineFailed, EngineUnavailable
from runtime.model.bundle import Bundle

NAME = "openvino"


class OpenVinoEngine(OnnxRuntimeEngine):
    """Engine on the CPU; see `runtime.engines.interface.Engine` for its methods.

    Args:
        bundle: The model.
        threads: Crops to compute at the same time; None for the cores that this process may use, up to eight.
        cache: Cache of compiled graphs; None for the user's.

    Raises:
        EngineUnavailable: OpenVINO is not installed, the bundle is not calibrated for int8, or the CPU does
            not compute it exactly.
        ValueError: `threads` is below 1.
    """

    name = NAME

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, cache: GraphCache | None = None
    ) -> None:
        super().__init__(bundle, threads=threads, cache=cache)
        if find_spec("openvino") is None:
            raise EngineUnavailable(NAME, "OpenVINO is not installed", "pip install 'unmask[openvino]'")
        if self.precision != "int8":
            reason = "it needs a model that is calibrated for int8, and a CPU with VNNI or AMX"
            raise EngineUnavailable(NAME, reason, "use --engine onnxruntime")

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_crops(self.bundle, crops)
        backbone, _, _ = self._open()
        if len(crops) == 0:
            return np.empty((0, self.bundle.feature_dim), np.float32)
        return join_finite(NAME, backbone.features(crops))

    def describe(self) -> str:
        return f"{NAME} {self._version} on the CPU, {count_threads(self.threads)}, int8"

    @cached_property
    def _version(self) -> str:
        return str(_library().__version__).partition("-")[0]

    def _loader(self, part: str, source: Path, precision: Precision) -> GraphLoader:
        if part == "head":
            return super()._loader(part, source, precision)
        library = f"{NAME} {self._version}, {self.threads}"
        return _BackboneLoader(source, precision, library, self.threads)


@dataclass(frozen=True)
class _BackboneLoader:
    """Loader of the backbone; a stored graph contains its weights."""

    source: Path
    precision: Precision
    library: str
    threads: int

    def optimise(self) -> _Backbone:
        return _Backbone.compile(rewritten(self.source, "backbone", self.precision), self.threads)

    def store(self, graph: Path, weights: str) -> None:
        graph.write_bytes(self.optimise().export())
        (graph.parent / weights).touch()

    def load(self, graph: Path) -> _Backbone:
        return _Backbone.load(graph.read_bytes(), self.threads)


class _Backbone:
    """Compiled backbone; computes as many crops at the same time as it has threads."""

    def __init__(self, model: Any, threads: int) -> None:
        self._model = model
        self._requests = [model.create_infer_request() for _ in range(threads)]
        # OpenVINO's binding for Python deadlocks when two threads make its first calls at the same time.
        self._running = threading.Lock()

    @classmethod
    def compile(cls, graph: bytes, threads: int) -> _Backbone:
        """Compile an ONNX graph."""
        try:
            core = _library().Core()
            return cls(core.compile_model(core.read_model(graph), "CPU", _settings(threads)), threads)
        except RuntimeError as error:
            raise EngineFailed(NAME, str(error)) from error

    @classmethod
    def load(cls, exported: bytes, threads: int) -> _Backbone:
        """Load what `export` returned."""
        try:
            core = _library().Core()
            return cls(core.import_model(BytesIO(exported), "CPU", _settings(threads)), threads)
        except RuntimeError as error:
            raise EngineFailed(NAME, str(error)) from error

    def export(self) -> bytes:
        """Return the compiled graph."""
        stream = BytesIO()
        self._model.export_model(stream)
        return stream.getvalue()

    def features(self, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the features of at least one crop, in one array for each thread that computed some."""
        shares = np.array_split(crops, min(len(self._requests), len(crops)))
        with self._running:
            try:
                running = self._requests[: len(shares)]
                for request, share in zip(running, shares, strict=True):
                    request.start_async([share])
                for request in running:
                    request.wait()
                return [np.array(request.get_output_tensor().data) for request in running]
            except RuntimeError as error:
                raise EngineFailed(NAME, str(error)) from error


def _library() -> Any:
    """Import OpenVINO without its telemetry."""
    # With this package, on which it depends, importing it would report to a server of its makers.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _settings(threads: int) -> dict[str, Any]:
    return {
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        # Sums and the final mean stay in float32; bfloat16 would be chosen for them where there is AMX.
        "INFERENCE_PRECISION_HINT": "f32",
        # Pinned threads would share a core with those of another process while other cores are idle.
        "ENABLE_CPU_PINNING": False,
    }
