"""The CPU engine. Stored int8 or float16 weights become float32 once; all arithmetic is float32."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from runtime.bundle import Bundle
from runtime.engines.cores import usable_cores
from runtime.engines.optimised import LEAST_BYTES, GraphKey, OptimisedGraphs, cpu_name
from runtime.engines.regroup import regrouped
from runtime.errors import EngineFailed
from streams.detector import Infer

NAME = "onnxruntime"

_log = logging.getLogger(__name__)

# One crop is too little work for more threads; with several faces eight still help.
MOST_THREADS = 8
MOST_DETECTOR_THREADS = 4

# Smaller tensors stay in the graph itself.
LEAST_EXTERNAL = 1024

_FATAL = 4

# Everything that onnxruntime raises derives from Exception alone, so each class has to be named.
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


class OnnxRuntimeEngine:
    """Runs a bundle on the CPU; see `runtime.engines.Engine` for the calls.

    Args:
        bundle: The model.
        threads: How many; None for the cores that this process may use, up to eight.
        graphs: Where optimised graphs are kept; None for the user's cache.

    Raises:
        ValueError: `threads` is below 1.
    """

    name = NAME

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, graphs: OptimisedGraphs | None = None
    ) -> None:
        self.bundle = bundle
        self._graphs = graphs or OptimisedGraphs()
        self.threads = _threads(threads, MOST_THREADS)
        self._sessions: tuple[Any, Any] | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        with self._opening:
            if self._sessions is not None:
                raise RuntimeError("this engine is open already")
            # The head is milliseconds of small matrix products: more threads would only be in the way.
            self._sessions = (
                self._load("backbone", self.threads),
                self._load("head", min(self.threads, 2)),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions = None

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        size, dim = self.bundle.input_size, self.bundle.feature_dim
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
            raise ValueError(f"crops must be uint8 (N, {size}, {size}, 3), not {crops.dtype} {crops.shape}")
        backbone, _ = self._open()
        if len(crops) == 0:
            return np.empty((0, dim), np.float32)
        return _finite(_run(backbone, {"crops": crops}))

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        bundle = self.bundle
        if windows.dtype != np.float32 or windows.ndim != 3 or windows.shape[2] != bundle.feature_dim:
            raise ValueError(
                f"windows must be float32 (N, T, {bundle.feature_dim}), not {windows.dtype} {windows.shape}"
            )
        if not bundle.min_frames <= windows.shape[1] <= bundle.window:
            raise ValueError(
                f"windows must hold {bundle.min_frames} to {bundle.window} samples, not {windows.shape[1]}"
            )
        _, head = self._open()
        # onnxruntime's LSTM aborts the whole process on an empty batch.
        if len(windows) == 0:
            return np.empty(0, np.float32)
        return _finite(_run(head, {"features": windows}))

    def describe(self) -> str:
        return f"{NAME} {onnxruntime.__version__} on the CPU, {_count(self.threads)}"

    def _load(self, part: str, threads: int) -> Any:
        """Make the session of one graph, from the cache of optimised ones or leaving it there."""
        source: Path = getattr(self.bundle, part)
        if source.stat().st_size < LEAST_BYTES:
            return _session(regrouped(source.read_bytes()), threads)
        key = GraphKey(digest=self.bundle.digest, part=part, library=onnxruntime.__version__, cpu=cpu_name())
        kept = self._graphs.find(key) or self._graphs.keep(
            key, lambda graph, weights: _optimise(source, graph, weights)
        )
        if kept is not None:
            try:
                return _session(kept, threads, optimised=True)
            except EngineFailed as error:
                _log.debug("the optimised %s is not used: %s", part, error)
                self._graphs.discard(key)
        return _session(regrouped(source.read_bytes()), threads)

    def _open(self) -> tuple[Any, Any]:
        sessions = self._sessions
        if sessions is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return sessions


def session_infer(model: bytes, *, threads: int | None = None) -> Infer:
    """Load a network of one input for the CPU.

    Args:
        model: A serialised ONNX model.
        threads: How many; None for the cores that this process may use, up to four.

    Returns:
        A function from the input array to the list of outputs.

    Raises:
        EngineFailed: onnxruntime cannot load it.
    """
    session = _session(model, _threads(threads, MOST_DETECTOR_THREADS))
    (port,) = session.get_inputs()

    def infer(picture: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return _run(session, {port.name: picture})

    return infer


def _threads(asked: int | None, most: int) -> int:
    if asked is None:
        return min(usable_cores(), most)
    if asked < 1:
        raise ValueError(f"threads must be at least 1, not {asked}")
    return asked


def _optimise(source: Path, graph: Path, weights: str) -> None:
    """Write a graph as onnxruntime runs it on this CPU, its weights beside it, where they can be mapped."""
    options = _options(threads=1)
    options.optimized_model_filepath = str(graph)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(LEAST_EXTERNAL)
    )
    _make(regrouped(source.read_bytes()), options)


def _session(model: Path | bytes, threads: int, *, optimised: bool = False) -> Any:
    options = _options(threads)
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _make(model if isinstance(model, bytes) else str(model), options)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # What goes wrong is raised; printed as well, it would land in the middle of the user's terminal.
    onnxruntime.set_default_logger_severity(_FATAL)
    options.log_severity_level = _FATAL
    # A live process is idle most of the time, and its networks take turns: a waiting thread must not spin.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Left on, the stored int8 weights are not folded at load but unpacked again in every run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _make(model: str | bytes, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise EngineFailed(NAME, _line(error)) from error


def _run(session: Any, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    try:
        outputs: list[NDArray[np.float32]] = session.run(None, feed)
    except _ERRORS as error:
        raise EngineFailed(NAME, _line(error)) from error
    return outputs


def _finite(outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    (output,) = outputs
    if not np.isfinite(output).all():
        raise EngineFailed(NAME, "it gave values that are not finite numbers")
    return output


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _count(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"
