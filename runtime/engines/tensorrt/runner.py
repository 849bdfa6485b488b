"""Execution of one TensorRT engine through pycuda: buffers, stream, execution contexts and CUDA graphs.

    runner = EngineRunner(Device(cuda), trt, engine, max_shape=(64, 112, 112, 3), ...)
    features = runner.run(crops)
    runner.close()

All memory is allocated once, for the largest input shape. The execution contexts of one engine share its
scratch memory, which is safe because a lock admits one call at a time.

Source:
    NVIDIA TensorRT developer guide, "CUDA graphs": one execution context per captured graph, with memory
    shared between contexts that do not run at the same time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from runtime.engines.tensorrt.device import (
    CaptureFailed,
    Device,
    GraphCapture,
    LaunchFailed,
    responds,
    translated_errors,
)
from runtime.engines.tensorrt.driver import ADVICE, NAME
from runtime.engines.tensorrt.engine_cache import read, write
from runtime.engines.tensorrt.library import create_runtime, is_rtx, load_cuda_driver, one_line, tensorrt_log
from runtime.errors import DeviceLost, DeviceMemoryFull, EngineError, EngineFailed, EngineUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from runtime.engines.tensorrt.api import (
        Allocation,
        CudaDriver,
        ICudaEngine,
        IExecutionContext,
        IRuntimeCache,
        IRuntimeConfig,
        TensorRT,
    )

# CU_STREAM_NON_BLOCKING: work of other libraries on the legacy stream neither delays ours nor breaks a
# capture.
_NON_BLOCKING = 1
# Each captured graph has its own execution context. A few streams have few batch sizes; rare sizes run
# without a graph.
MAX_CUDA_GRAPHS = 16

_log = logging.getLogger(__name__)


class EngineRejected(EngineFailed):
    """TensorRT does not accept a serialized engine; it has to be built again."""


class EngineRunner:
    """Runner of one serialized engine with one input and one output; safe to call from several threads.

    Args:
        device: The GPU; not current on this thread.
        trt: The TensorRT module.
        engine: Serialized engine for this GPU.
        max_shape: Largest input shape.
        dtype: Input type.
        output_shape: Output shape without the batch axis.
        cuda_graphs: Whether to replay CUDA graphs for recurring shapes.
        kernel_cache: File for the kernels that TensorRT-RTX compiles for this GPU; None to keep none.
        cuda_driver: The module `cuda.bindings.driver`; None to import it if CUDA graphs need it.

    Raises:
        EngineRejected: TensorRT does not accept the engine; a new build may help.
        EngineUnavailable: TensorRT-RTX does not support this GPU.
        EngineFailed: The engine cannot be set up.
        DeviceMemoryFull: The GPU has too little memory left.
    """

    def __init__(
        self,
        device: Device,
        trt: TensorRT,
        engine: bytes,
        *,
        max_shape: tuple[int, ...],
        dtype: type[np.generic],
        output_shape: tuple[int, ...],
        cuda_graphs: bool = True,
        kernel_cache: Path | None = None,
        cuda_driver: CudaDriver | None = None,
    ) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._output_shape = output_shape
        self._full_shape = max_shape[1:]
        self._seen: set[tuple[int, ...]] = set()
        self._captured: dict[tuple[int, ...], tuple[IExecutionContext, object]] = {}
        # TensorRT-RTX captures graphs itself, once it has compiled the kernels of a shape.
        self._native_graphs = cuda_graphs and is_rtx(trt)
        self._capture: GraphCapture | None = None
        if cuda_graphs and not is_rtx(trt) and (driver := cuda_driver or load_cuda_driver()) is not None:
            self._capture = GraphCapture(driver)
        self._capturing = self._capture is not None
        with device.current(), translated_errors(device.cuda):
            self._loaded: _LoadedEngine | None = _LoadedEngine(
                device,
                trt,
                engine,
                max_shape=max_shape,
                dtype=np.dtype(dtype),
                output_size=max_shape[0] * math.prod(output_shape),
                native_graphs=self._native_graphs,
                kernel_cache=kernel_cache,
            )

    def inspect(self) -> str:
        """Return the output of TensorRT's engine inspector, as JSON text."""
        with self._locked() as loaded, self._device.current():
            return loaded.inspect()

    @property
    def cuda_graphs(self) -> str:
        """Kind of CUDA graph replay: `own`, `native` (by TensorRT-RTX) or `none`."""
        if self._native_graphs:
            return "native"
        return "own" if self._capturing or self._captured else "none"

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch.

        Args:
            batch: Array of the input type; N at least 1, no axis above its maximum.

        Returns:
            float32 `(N, *output_shape)`.

        Raises:
            EngineFailed: TensorRT rejects the batch.
            DeviceMemoryFull: The GPU's memory is full.
            DeviceLost: The GPU no longer responds.
        """
        shape = tuple(int(length) for length in batch.shape)
        output_size = shape[0] * math.prod(self._output_shape)
        with (
            self._locked() as loaded,
            self._device.current(),
            translated_errors(self._device.cuda, loaded.stream),
        ):
            loaded.log.errors.clear()
            np.copyto(loaded.host_input[: batch.size].reshape(shape), batch)
            captured = self._captured.get(shape)
            with self._device.queueing:
                if captured is not None:
                    self._launch(loaded, captured[1])
                else:
                    loaded.set_shape(loaded.context, shape)
                    loaded.enqueue(loaded.context, batch.size, output_size)
            loaded.synchronize()
            host_output: NDArray[np.float32] = loaded.host_output[:output_size]
            result = host_output.reshape(shape[0], *self._output_shape).copy()
            if captured is None and self._capturing:
                self._capture_if_recurring(loaded, shape, batch.size, output_size)
        return result

    def close(self) -> None:
        """Free all memory."""
        try:
            with self._lock, self._device.current():
                loaded, self._loaded = self._loaded, None
                if loaded is not None:
                    loaded.save_kernel_cache()
                    captured, self._captured = self._captured, {}
                    if self._capture is not None:
                        for _, graph in captured.values():
                            self._capture.destroy(graph)
                    # Execution contexts go before their engine.
                    captured.clear()
                    loaded.free()
        except self._device.cuda.Error as error:
            # A lost device cannot release anything.
            _log.debug("%s", error)

    @contextmanager
    def _locked(self) -> Iterator[_LoadedEngine]:
        """Admit one call at a time, and none after `close`."""
        with self._lock:
            if self._loaded is None:
                raise RuntimeError("this engine is closed; use it inside `with`")
            yield self._loaded

    def _launch(self, loaded: _LoadedEngine, graph: object) -> None:
        assert self._capture is not None
        try:
            self._capture.launch(graph, int(loaded.stream.handle))
        except LaunchFailed as error:
            raise loaded.failure(f"a CUDA graph did not run: {error}") from error

    def _capture_if_recurring(
        self, loaded: _LoadedEngine, shape: tuple[int, ...], input_size: int, output_size: int
    ) -> None:
        """Capture a CUDA graph when a full-length shape is seen for the second time."""
        if shape[1:] != self._full_shape:
            # A window that is still filling: each length occurs once per face.
            return
        if shape not in self._seen:
            self._seen.add(shape)
            return
        if len(self._captured) >= MAX_CUDA_GRAPHS:
            return
        assert self._capture is not None
        try:
            with self._device.queueing:
                context = loaded.new_context()
                loaded.set_shape(context, shape)
                # The first run of a context does work that cannot be captured.
                loaded.enqueue(context, input_size, output_size)
                loaded.synchronize()
                graph = self._capture.capture(
                    int(loaded.stream.handle),
                    lambda: loaded.enqueue(context, input_size, output_size, capturing=True),
                )
            self._captured[shape] = context, graph
        except (CaptureFailed, EngineFailed, self._device.cuda.Error) as error:
            _log.info("no CUDA graphs: %s", one_line(error))
            # Graphs captured so far stay valid; no more are tried.
            self._capturing = False
            # Wait for work left by the failed capture; this raises if the device is lost.
            loaded.synchronize()


class _LoadedEngine:
    """Deserialized engine with its stream, its buffers and one execution context; the device is current."""

    def __init__(
        self,
        device: Device,
        trt: TensorRT,
        serialized: bytes,
        *,
        max_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        output_size: int,
        native_graphs: bool,
        kernel_cache: Path | None,
    ) -> None:
        self._cuda = device.cuda
        self._trt = trt
        self._native_graphs = native_graphs
        self._kernel_cache_path = kernel_cache
        self._kernel_cache: IRuntimeCache | None = None
        self._allocations: list[Allocation] = []
        self._scratch = self._scratch_bytes = 0
        self.log = tensorrt_log(trt)
        try:
            self._engine = self._deserialize(serialized)
            self._input_name, self._output_name = self._tensor_names()
            self.stream = self._cuda.Stream(_NON_BLOCKING)
            flags = self._cuda.event_flags
            # A blocking wait leaves the CPU to the decoding of frames.
            self._done = self._cuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)
            self._allocate(math.prod(max_shape), dtype, output_size)
            self.context = self.new_context()
        except BaseException:
            self.free()
            raise

    def _deserialize(self, serialized: bytes) -> ICudaEngine:
        trt = self._trt
        self.log.errors.clear()
        self._runtime = create_runtime(trt)
        if is_rtx(trt) and hasattr(self._runtime, "get_engine_validity"):
            validity, _ = self._runtime.get_engine_validity(serialized)
            if validity == trt.EngineValidity.INVALID:
                raise EngineUnavailable(
                    NAME, "TensorRT-RTX does not support this GPU", f"install TensorRT itself, or {ADVICE}"
                )
        engine = self._runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            failure = self.failure("it does not accept the built engine")
            raise failure if type(failure) is not EngineFailed else EngineRejected(NAME, failure.reason)
        return engine

    def _tensor_names(self) -> tuple[str, str]:
        """Return the names of the one input and the one output."""
        engine, modes = self._engine, self._trt.TensorIOMode
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
        (input_name,) = inputs
        (output_name,) = (name for name in names if name not in inputs)
        return input_name, output_name

    def _allocate(self, input_size: int, dtype: np.dtype[Any], output_size: int) -> None:
        self.host_input = self._allocate_host(input_size, dtype)
        self.host_output = self._allocate_host(output_size, np.dtype(np.float32))
        self._device_input = self._allocate_device(input_size * dtype.itemsize)
        self._device_output = self._allocate_device(output_size * 4)
        if not is_rtx(self._trt):
            self._scratch_bytes = _scratch_bytes(self._engine)
            self._scratch = self._allocate_device(self._scratch_bytes)

    def _allocate_host(self, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        array = self._cuda.pagelocked_empty(size, dtype)
        # The base of pycuda's array is the allocation, not an array.
        self._allocations.append(cast("Allocation", array.base))
        return array

    def _allocate_device(self, size: int) -> int:
        memory = self._cuda.mem_alloc(max(1, size))
        self._allocations.append(memory)
        return int(memory)

    def new_context(self) -> IExecutionContext:
        """Create an execution context on the shared scratch memory, with the buffer addresses set."""
        trt, engine = self._trt, self._engine
        if is_rtx(trt):
            context = engine.create_execution_context(self._rtx_config())
        elif hasattr(trt, "ExecutionContextAllocationStrategy"):
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            # TensorRT 8.6
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise self.failure("it cannot create an execution context")
        if hasattr(context, "nvtx_verbosity"):
            # Engines have details for the inspector; contexts would use them to label layers for profilers.
            context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
        if getattr(context, "active_optimization_profile", 0) < 0:
            context.set_optimization_profile_async(0, int(self.stream.handle))
        if self._scratch:
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(self._scratch, self._scratch_bytes)
            else:
                context.device_memory = self._scratch
        addresses = {self._input_name: self._device_input, self._output_name: self._device_output}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise self.failure(f"it does not accept the address of {name}")
        return context

    def _rtx_config(self) -> IRuntimeConfig:
        trt = self._trt
        config = self._engine.create_runtime_config()
        if self._native_graphs and hasattr(trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        path = self._kernel_cache_path
        if path is not None and hasattr(config, "create_runtime_cache"):
            self._kernel_cache = config.create_runtime_cache()
            if path.is_file():
                self._kernel_cache.deserialize(read(path))
            config.set_runtime_cache(self._kernel_cache)
        return config

    def save_kernel_cache(self) -> None:
        """Save the kernels that TensorRT-RTX compiled, for the next start."""
        if self._kernel_cache is None or self._kernel_cache_path is None:
            return
        try:
            content = self._kernel_cache.serialize()
            if content is not None:
                write(self._kernel_cache_path, bytes(content))
        except EngineError as error:
            _log.warning("%s", error)

    def set_shape(self, context: IExecutionContext, shape: tuple[int, ...]) -> None:
        if not context.set_input_shape(self._input_name, shape):
            raise EngineFailed(NAME, f"it does not accept the shape {shape} ({self.log.last_error()})")

    def enqueue(
        self, context: IExecutionContext, input_size: int, output_size: int, *, capturing: bool = False
    ) -> None:
        """Queue the upload, the execution and the download."""
        self._cuda.memcpy_htod_async(self._device_input, self.host_input[:input_size], self.stream)
        if not context.execute_async_v3(int(self.stream.handle)):
            # During a capture the device cannot be queried: that alone would end the capture.
            raise CaptureFailed(self.log.last_error()) if capturing else self.failure("it did not run")
        self._cuda.memcpy_dtoh_async(self.host_output[:output_size], self._device_output, self.stream)

    def synchronize(self) -> None:
        """Wait until the stream is idle."""
        self._done.record(self.stream)
        self._done.synchronize()

    def inspect(self) -> str:
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def failure(self, problem: str) -> EngineFailed:
        """Return the error for a call of TensorRT that returned False or None."""
        if memory_error := self.log.memory_error():
            return DeviceMemoryFull(NAME, f"the GPU's memory is full ({memory_error})")
        reason = self.log.last_error()
        if not responds(self._cuda, vars(self).get("stream")):
            return DeviceLost(NAME, f"the GPU stopped responding ({reason})")
        return EngineFailed(NAME, f"{problem} ({reason})")

    def free(self) -> None:
        """Release everything in the order of dependence, also after a failed start."""
        names = ("context", "_kernel_cache", "_engine", "_runtime", "host_input", "host_output")
        for name in (*names, "stream", "_done"):
            vars(self).pop(name, None)
        allocations, self._allocations = self._allocations, []
        for allocation in allocations:
            try:
                allocation.free()
            except self._cuda.Error as error:
                # A lost device cannot release anything.
                _log.debug("%s", error)


def _scratch_bytes(engine: ICudaEngine) -> int:
    # TensorRT 10 added a 64-bit size under a new name; TensorRT 11 has only that.
    new = hasattr(engine, "device_memory_size_v2")
    return max(256, int(engine.device_memory_size_v2 if new else engine.device_memory_size))
