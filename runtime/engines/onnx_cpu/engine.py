"""Inference engine for the CPU, on onnxruntime.

Weights stored as int8 or float16 are converted to float32 once. Both networks are computed in float32, or in
int8 if the backbone has activation ranges (`runtime/engines/onnx_cpu/int8.py`) and the CPU computes int8
exactly.

Each thread computes whole crops. Splitting one crop's convolutions between threads is slower: they are small,
and the threads would wait for each other fifty times per crop, for longer on a busy machine.
Measured with ResNeXt-50 at 112 pixels on two cores with AVX-512, one of which multiplies float32 matrices at
105 GFLOP/s (milliseconds per crop):

    float32, one thread                       23.1; batch of 4: 22.2, 95 % of the limit
    ... without merged ResNeXt groups         24.3; batch of 4: 22.9
    ... two threads within a crop             14.5, using 29 of CPU time; batch of 8: 11.8
    ... two threads, one crop each            batch of 8: 12.1, on a machine with other load
    int8, one thread                          10.2; batch of 4: 9.4; two threads, one crop each: 5.5
    ... with onnxruntime's quantize_static    12.6; batch of 4: 11.5; 1.6 times the rounding error
    ... and merged ResNeXt groups             10.2; batch of 4: 9.0
    OpenVINO 2026.4, float32, one thread      23.4; batch of 4: 21.5
    ... bfloat16                              15 to 23; batch of 4: 11.8
    ... int8                                  8.3; batch of 4: 7.5
    float32 with I/O binding                  23.5 instead of 23.8

OpenVINO, a second runtime of 178 MB, is faster in int8 only; see `runtime/engines/openvino.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from runtime.engines.cpu import usable_cores
from runtime.engines.interface import check_crops, check_windows, join_finite
from runtime.engines.onnx_cpu.graph_cache import MIN_BYTES, GraphCache, GraphKey, cpu_name
from runtime.engines.onnx_cpu.grouped_convolution import merge_narrow_groups
from runtime.engines.onnx_cpu.int8 import METADATA, activation_ranges, int8_is_exact, quantize
from runtime.engines.onnx_cpu.int8_lstm import quantize_lstms
from runtime.errors import EngineFailed, EngineUnavailable
from runtime.model.bundle import Bundle
from streams.faces.detector import Infer

NAME = "onnxruntime"

_log = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]

# Larger batches of crops are rare.
MAX_THREADS = 8
# The detector's convolutions are small: with a second thread CPU time rose from 40 to 65 ms, for 36 ms of
# wall time.
MAX_DETECTOR_THREADS = 1

# Smaller tensors are stored in the graph itself.
MIN_EXTERNAL_BYTES = 1024

_FATAL = 4

# onnxruntime's exceptions have no common base class of their own.
_ERRORS: tuple[type[Exception], ...] = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoSuchFile,
    native.NotImplemented,
    native.RuntimeException,
)


class GraphLoader(Protocol):
    """Optimises one graph of a bundle for the CPU, and stores and loads the result."""

    @property
    def library(self) -> str:
        """Library, version and settings that a stored graph depends on."""
        ...

    def optimise(self) -> Any:
        """Return the graph, ready to run."""
        ...

    def store(self, graph: Path, weights: str) -> None:
        """Write the optimised graph to a path, and its weights beside it under a name."""
        ...

    def load(self, graph: Path) -> Any:
        """Return a stored graph, ready to run; raise EngineFailed or OSError if it cannot be loaded."""
        ...


@dataclass(frozen=True)
class SessionLoader:
    """Loader of a graph as a session of onnxruntime."""

    part: str
    source: Path
    precision: Precision
    library: str = onnxruntime.__version__

    def optimise(self) -> Any:
        return _make(rewritten(self.source, self.part, self.precision), self._options())

    def store(self, graph: Path, weights: str) -> None:
        options = self._options()
        options.optimized_model_filepath = str(graph)
        # Weights in a file of their own can be mapped into memory.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(MIN_EXTERNAL_BYTES)
        )
        _make(rewritten(self.source, self.part, self.precision), options)

    def load(self, graph: Path) -> Any:
        return _make(str(graph), _options(1, optimised=True))

    def _options(self) -> Any:
        return _options(1, int8=self.part == "backbone" and self.precision == "int8")


class OnnxRuntimeEngine:
    """Engine on the CPU; see `runtime.engines.interface.Engine` for its methods.

    Args:
        bundle: The model.
        threads: Crops to compute at the same time; None for the cores that this process may use, up to eight.
        precision: Precision of both networks, `fp32` or `int8`; None for `int8` if the bundle is calibrated
            for it and the CPU computes it exactly, else `fp32`.
        cache: Cache of optimised graphs; None for the user's.

    Raises:
        EngineUnavailable: int8 was requested, but the bundle is not calibrated for it, or the CPU does not
            compute it exactly. Raised on entry.
        ValueError: `threads` is below 1.
    """

    name = NAME

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        precision: Precision | None = None,
        cache: GraphCache | None = None,
    ) -> None:
        self.bundle = bundle
        self._cache = cache or GraphCache()
        self._requested = precision
        self.threads = _threads(threads, MAX_THREADS)
        self._sessions: tuple[Any, Any] | None = None
        self._helpers: ThreadPoolExecutor | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        with self._opening:
            if self._sessions is not None:
                raise RuntimeError("this engine is open already")
            self._sessions = self._load("backbone", self.precision), self._load("head", self.precision)
            # One less than `threads`, because the caller's thread computes a share too.
            self._helpers = ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="crops")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions = None
        helpers, self._helpers = self._helpers, None
        if helpers is not None:
            helpers.shutdown()

    @cached_property
    def precision(self) -> Precision:
        """Precision of the backbone and of the LSTM in the head."""
        if self._requested == "fp32":
            return "fp32"
        content = self.bundle.backbone.read_bytes()
        # Searching the bytes is faster than parsing a graph that has no ranges.
        calibrated = METADATA.encode() in content and activation_ranges(content) is not None
        if calibrated and int8_is_exact():
            return "int8"
        if self._requested is None:
            return "fp32"
        if not calibrated:
            raise EngineUnavailable(
                NAME,
                f"{self.bundle.name} has no activation ranges for int8",
                "export it again with faces to calibrate on",
            )
        raise EngineUnavailable(
            NAME, "int8 sums are not exact on this CPU, which lacks VNNI", "compute in float32 instead"
        )

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_crops(self.bundle, crops)
        backbone, _, helpers = self._open()
        if len(crops) == 0:
            return np.empty((0, self.bundle.feature_dim), np.float32)
        own, *others = np.array_split(crops, min(self.threads, len(crops)))
        futures = [helpers.submit(_run, backbone, {"crops": share}) for share in others]
        parts = [_run(backbone, {"crops": own}), *(future.result() for future in futures)]
        return join_finite(self.name, [part for (part,) in parts])

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(self.bundle, windows)
        _, head, _ = self._open()
        # onnxruntime's LSTM aborts the whole process on an empty batch.
        if len(windows) == 0:
            return np.empty(0, np.float32)
        return join_finite(NAME, _run(head, {"features": windows}))

    def describe(self) -> str:
        int8 = ", int8" if self.precision == "int8" else ""
        return f"{NAME} {onnxruntime.__version__} on the CPU, {count_threads(self.threads)}{int8}"

    def _load(self, part: str, precision: Precision) -> Any:
        """Return one graph, ready to run, from the cache of optimised graphs if possible."""
        source: Path = getattr(self.bundle, part)
        loader = self._loader(part, source, precision)
        if source.stat().st_size >= MIN_BYTES:
            key = GraphKey(
                digest=self.bundle.digest,
                part=part,
                precision=precision,
                library=loader.library,
                cpu=cpu_name(),
            )
            kept = self._cache.find(key) or self._cache.store(key, loader.store)
            if kept is not None:
                try:
                    return loader.load(kept)
                except (EngineFailed, OSError) as error:
                    _log.debug("the optimised %s is not used: %s", part, error)
                    self._cache.discard(key)
        return loader.optimise()

    def _loader(self, part: str, source: Path, precision: Precision) -> GraphLoader:
        return SessionLoader(part, source, precision)

    def _open(self) -> tuple[Any, Any, ThreadPoolExecutor]:
        sessions, helpers = self._sessions, self._helpers
        if sessions is None or helpers is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return *sessions, helpers


def session_infer(model: bytes, *, threads: int | None = None) -> Infer:
    """Load a network with one input for the CPU.

    Args:
        model: Serialised ONNX model.
        threads: Number of threads; None for one.

    Returns:
        Function from the input array to the list of outputs.

    Raises:
        EngineFailed: onnxruntime cannot load it.
    """
    session = _make(model, _options(_threads(threads, MAX_DETECTOR_THREADS)))
    (port,) = session.get_inputs()

    def infer(image: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return _run(session, {port.name: image})

    return infer


def _threads(requested: int | None, max_threads: int) -> int:
    if requested is None:
        return min(usable_cores(), max_threads)
    if requested < 1:
        raise ValueError(f"threads must be at least 1, not {requested}")
    return requested


def rewritten(source: Path, part: str, precision: Precision) -> bytes:
    """Return a bundle's graph, rewritten for the CPU."""
    content = source.read_bytes()
    if part == "head":
        return quantize_lstms(content) if precision == "int8" else content
    graph = merge_narrow_groups(content)
    return quantize(graph) if precision == "int8" else graph


def _options(threads: int, *, int8: bool = False, optimised: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if optimised else level.ORT_ENABLE_ALL
    # Errors are raised as exceptions; onnxruntime would also print them to the user's terminal.
    onnxruntime.set_default_logger_severity(_FATAL)
    options.log_severity_level = _FATAL
    # A live process is idle most of the time and runs its networks in turn, so waiting threads must not spin.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Otherwise stored int8 weights are converted to float32 in every run instead of once.
    options.add_session_config_entry("session.disable_quant_qdq", "0" if int8 else "1")
    return options


def _make(model: str | bytes, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise EngineFailed(NAME, str(error)) from error


def _run(session: Any, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    try:
        outputs: list[NDArray[np.float32]] = session.run(None, feed)
    except _ERRORS as error:
        raise EngineFailed(NAME, str(error)) from error
    return outputs


def count_threads(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"
