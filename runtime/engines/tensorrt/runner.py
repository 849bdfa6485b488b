"""One network on the GPU, through pycuda: its memory, its stream, and CUDA graphs of the shapes that recur.

    with Device(cuda) as device:
        network = EngineRunner(device, trt, engine, largest=(64, 112, 112, 3), ...)
        features = network.run(crops)
        network.close()

The GPU's primary context is used, the one that torch and every other library of the process has too. It is
pushed on whatever thread calls and popped again. All memory is taken once, for the largest shape; the scratch
memory that TensorRT works in is shared by the execution contexts of one network, which is safe as one lock
lets one call in at a time.

Source:
    CUDA driver API, "Primary context management", "Stream management" (capture modes); NVIDIA TensorRT
    developer guide, "CUDA graphs": one execution context per captured graph, memory shared between them.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.tensorrt.driver import ADVICE, NAME, leave_context
from runtime.engines.tensorrt.engine_cache import write
from runtime.engines.tensorrt.library import is_rtx, start, tensorrt_log
from runtime.errors import DeviceLost, DeviceMemoryFull, EngineError, EngineFailed, EngineUnavailable

# CU_STREAM_NON_BLOCKING: what another library does on the legacy stream does not wait for ours, nor break a
# capture.
_NON_BLOCKING = 1
# CUDA_ERROR_OUT_OF_MEMORY
_OUT_OF_MEMORY = 2
# Each graph keeps an execution context. Batches of a few streams have few sizes; rare ones run as they are.
MAX_CUDA_GRAPHS = 16

_log = logging.getLogger(__name__)


class Device:
    """Holds the GPU's primary context.

    Args:
        cuda: The module `pycuda.driver`; the driver has been probed.

    Raises:
        DeviceMemoryFull: The GPU has no memory left for a context.
        EngineFailed: The driver gives none.
    """

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        try:
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()
        except cuda.MemoryError as error:
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({_line(error)})") from error
        except cuda.Error as error:
            raise EngineFailed(NAME, _line(error)) from error
        # Held while work is queued, not while it is awaited: what one network makes must not fall into what
        # another one captures.
        self.queueing = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU this thread's, for what stands inside."""
        self._context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    def close(self) -> None:
        """Give the context back; all that was made in it has to be gone."""
        handle = int(self._context.handle)
        try:
            # Pushed, since pycuda leaks a context that is given back on another thread than took it.
            self._context.push()
            self._context.detach()
        except self.cuda.Error as error:
            # A lost device has nothing to take back.
            _log.debug("%s", error)
        leave_context(handle)


class EngineRunner:
    """Runs one serialised engine with one input and one output.

    Args:
        device: The GPU; not current on this thread.
        trt: The TensorRT module.
        engine: Serialised, for this GPU.
        largest: The largest shape of the input.
        dtype: The input's type.
        given: The output's shape after the batch axis.
        cuda_graphs: Whether to replay CUDA graphs.
        kernels: Where TensorRT-RTX keeps what it compiles for this GPU; None for nowhere.

    Raises:
        EngineRejected: TensorRT does not take the engine; another build may do.
        EngineUnavailable: TensorRT-RTX does not serve this GPU.
        EngineFailed: It cannot be set up.
        DeviceMemoryFull: The GPU has too little memory left.
    """

    def __init__(
        self,
        device: Device,
        trt: Any,
        engine: bytes,
        *,
        largest: tuple[int, ...],
        dtype: type[np.generic],
        given: tuple[int, ...],
        cuda_graphs: bool = True,
        kernels: Path | None = None,
    ) -> None:
        self._device = device
        self._cuda = device.cuda
        self._trt = trt
        self._given = given
        self._dtype = np.dtype(dtype)
        self._logger = tensorrt_log(trt)
        self._lock = threading.Lock()
        self._steady = largest[1:]
        self._seen: set[tuple[int, ...]] = set()
        self._replays: dict[tuple[int, ...], tuple[Any, Any]] = {}
        self._kernels = kernels
        self._kernel_cache: Any = None
        # TensorRT-RTX captures by itself once its kernels for a shape are compiled; only it knows when.
        self._capture = _capture_api() if cuda_graphs and not is_rtx(trt) else None
        self._learning = self._capture is not None
        self._native_graphs = cuda_graphs and is_rtx(trt)
        self._owned: list[Any] = []
        self._stream: Any = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        with device.current(), named_errors(self._cuda):
            try:
                self._open(engine, largest)
            except BaseException:
                self._free()
                raise

    def inspect(self) -> str:
        """Give what TensorRT's inspector says of the engine, as JSON text."""
        with self._open_only(), self._device.current():
            inspector = self._engine.create_engine_inspector()
            return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    @property
    def cuda_graphs(self) -> str:
        """How graphs are replayed: `own`, `native` to TensorRT-RTX, or `none`."""
        return "native" if self._native_graphs else "own" if self._learning or self._replays else "none"

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch.

        Args:
            batch: Of the input's type; no axis above its largest, N at least 1.

        Returns:
            float32 `(N, *given)`.

        Raises:
            EngineFailed: TensorRT refuses the batch.
            DeviceMemoryFull: The GPU's memory is full.
            DeviceLost: The GPU does not answer any more.
        """
        shape = tuple(int(length) for length in batch.shape)
        with self._open_only(), self._device.current(), named_errors(self._cuda, self._stream):
            self._logger.errors.clear()
            taken = self._staged_in[: batch.size]
            np.copyto(taken.reshape(shape), batch)
            given = self._staged_out[: shape[0] * math.prod(self._given)]
            replay = self._replays.get(shape)
            with self._device.queueing:
                if replay is not None:
                    self._launch(replay[1])
                else:
                    self._set_shape(self._context, shape)
                    self._enqueue(self._context, taken, given)
            self._finish()
            answer: NDArray[np.float32] = given.reshape(shape[0], *self._given).copy()
            if replay is None and self._learning:
                self._learn(shape, taken, given)
        return answer

    def close(self) -> None:
        """Give all memory back."""
        try:
            with self._lock, self._device.current():
                self._keep_kernels()
                self._free()
        except self._cuda.Error as error:
            # A lost device has nothing to give back.
            _log.debug("%s", error)

    @contextmanager
    def _open_only(self) -> Iterator[None]:
        """Let one call in at a time, and none once it is closed."""
        with self._lock:
            if self._context is None:
                raise RuntimeError("this engine is closed; use it inside `with`")
            yield

    def _open(self, serialized: bytes, largest: tuple[int, ...]) -> None:
        trt, cuda = self._trt, self._cuda
        self._logger.errors.clear()
        self._runtime = start(trt, "Runtime")
        if is_rtx(trt) and hasattr(self._runtime, "get_engine_validity"):
            validity, _ = self._runtime.get_engine_validity(serialized)
            if validity == trt.EngineValidity.INVALID:
                raise EngineUnavailable(
                    NAME, "TensorRT-RTX does not serve this GPU", f"install TensorRT itself, or {ADVICE}"
                )
        self._engine = self._runtime.deserialize_cuda_engine(serialized)
        if self._engine is None:
            failure = self._failure("it does not take the built engine")
            raise failure if type(failure) is not EngineFailed else EngineRejected(NAME, failure.reason)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        (self._taken_name,) = inputs
        (self._given_name,) = (name for name in names if name not in inputs)
        self._stream = cuda.Stream(_NON_BLOCKING)
        # Waiting asleep: the CPU has pictures to decode.
        self._done = cuda.Event(cuda.event_flags.BLOCKING_SYNC | cuda.event_flags.DISABLE_TIMING)
        size_in, size_out = math.prod(largest), largest[0] * math.prod(self._given)
        self._staged_in = cuda.pagelocked_empty(size_in, self._dtype)
        self._owned.append(self._staged_in.base)
        self._staged_out = cuda.pagelocked_empty(size_out, np.float32)
        self._owned.append(self._staged_out.base)
        self._device_in = self._allocate(size_in * self._dtype.itemsize)
        self._device_out = self._allocate(size_out * 4)
        self._scratch = 0
        if not is_rtx(trt):
            self._scratch_bytes = _scratch_bytes(self._engine)
            self._scratch = self._allocate(self._scratch_bytes)
        self._context = self._new_context()

    def _allocate(self, size: int) -> int:
        memory = self._cuda.mem_alloc(max(1, size))
        self._owned.append(memory)
        return int(memory)

    def _new_context(self) -> Any:
        """Make an execution context on the shared scratch memory, with the addresses set."""
        trt, engine = self._trt, self._engine
        if is_rtx(trt):
            context = engine.create_execution_context(self._rtx_config())
        elif hasattr(trt, "ExecutionContextAllocationStrategy"):
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            # TensorRT 8.6 and 9
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise self._failure("it cannot make an execution context")
        if hasattr(context, "nvtx_verbosity"):
            # Built with details for the inspector, it would label every layer of every call for profilers.
            context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
        if getattr(context, "active_optimization_profile", 0) < 0:
            context.set_optimization_profile_async(0, int(self._stream.handle))
        if self._scratch:
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(self._scratch, self._scratch_bytes)
            else:
                context.device_memory = self._scratch
        for name, address in ((self._taken_name, self._device_in), (self._given_name, self._device_out)):
            if not context.set_tensor_address(name, address):
                raise self._failure(f"it does not take the address of {name}")
        return context

    def _rtx_config(self) -> Any:
        trt = self._trt
        config = self._engine.create_runtime_config()
        if self._native_graphs and hasattr(trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._kernels is not None and hasattr(config, "create_runtime_cache"):
            self._kernel_cache = config.create_runtime_cache()
            if self._kernels.is_file():
                self._kernel_cache.deserialize(self._kernels.read_bytes())
            config.set_runtime_cache(self._kernel_cache)
        return config

    def _keep_kernels(self) -> None:
        """Keep what TensorRT-RTX compiled, so that the next start need not."""
        if self._kernel_cache is None or self._kernels is None:
            return
        try:
            content = self._kernel_cache.serialize()
            if content is not None:
                write(self._kernels, bytes(content))
        except EngineError as error:
            _log.warning("%s", error)

    def _set_shape(self, context: Any, shape: tuple[int, ...]) -> None:
        if not context.set_input_shape(self._taken_name, shape):
            raise EngineFailed(NAME, f"it does not take the shape {shape} ({self._logger.said()})")

    def _enqueue(
        self, context: Any, taken: NDArray[Any], given: NDArray[np.float32], *, capturing: bool = False
    ) -> None:
        """Queue the copy up, the network and the copy down."""
        self._cuda.memcpy_htod_async(self._device_in, taken, self._stream)
        if not context.execute_async_v3(int(self._stream.handle)):
            # Within a capture the device cannot be asked how it is: that alone would end the capture.
            raise CaptureFailed(self._logger.said()) if capturing else self._failure("it did not run")
        self._cuda.memcpy_dtoh_async(given, self._device_out, self._stream)

    def _launch(self, graph: Any) -> None:
        assert self._capture is not None
        try:
            self._capture.launch(graph, int(self._stream.handle))
        except LaunchFailed as error:
            raise self._failure(f"a CUDA graph did not run: {error}") from error

    def _finish(self) -> None:
        self._done.record(self._stream)
        self._done.synchronize()

    def _learn(self, shape: tuple[int, ...], taken: NDArray[Any], given: NDArray[np.float32]) -> None:
        """Capture a graph of a shape that comes for the second time and will again."""
        if shape[1:] != self._steady:
            # Of a window that is still filling.
            return
        if shape not in self._seen:
            self._seen.add(shape)
            return
        if len(self._replays) >= MAX_CUDA_GRAPHS:
            return
        assert self._capture is not None
        try:
            with self._device.queueing:
                context = self._new_context()
                self._set_shape(context, shape)
                # A context's first run does work that cannot be captured.
                self._enqueue(context, taken, given)
                self._finish()
                stream = int(self._stream.handle)
                with self._capture.capturing(stream) as captured:
                    self._enqueue(context, taken, given, capturing=True)
            self._replays[shape] = context, captured.executable
        except (CaptureFailed, EngineFailed, self._cuda.Error) as error:
            _log.info("no CUDA graphs: %s", _line(error))
            # Those that were captured stay good; no more are tried.
            self._learning = False
            # What a capture left undone must not meet the next call; a lost device shows here.
            self._finish()

    def _failure(self, what: str) -> EngineFailed:
        """Name what TensorRT only reported as false or None."""
        if full := self._logger.full():
            return DeviceMemoryFull(NAME, f"the GPU's memory is full ({full})")
        said = self._logger.said()
        if not _answers(self._cuda, self._stream):
            return DeviceLost(NAME, f"the GPU stopped answering ({said})")
        return EngineFailed(NAME, f"{what} ({said})")

    def _free(self) -> None:
        """Take everything apart in the order of dependence; the device is current."""
        replays, self._replays = self._replays, {}
        if self._capture is not None:
            for _, graph in replays.values():
                self._capture.destroy(graph)
        replays.clear()
        self._context = None
        self._kernel_cache = None
        self._engine = None
        self._runtime = None
        # Views of memory that is about to go.
        self._staged_in = self._staged_out = np.empty(0, np.uint8)
        self._stream = self._done = None
        owned, self._owned = self._owned, []
        for memory in owned:
            try:
                memory.free()
            except self._cuda.Error as error:
                # A lost device has nothing to give back.
                _log.debug("%s", error)


class EngineRejected(EngineFailed):
    """Says that TensorRT does not take a serialised engine: it has to be built again."""


class CaptureFailed(Exception):
    """Says that a CUDA graph could not be captured; the network runs without."""


class LaunchFailed(Exception):
    """Says with which code the driver refused a captured graph."""


class CaptureApi:
    """Captures CUDA graphs, which pycuda cannot.

    Args:
        driver: The module `cuda.bindings.driver`.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @contextmanager
    def capturing(self, stream: int) -> Iterator[Captured]:
        """Capture what is queued inside instead of running it.

        Args:
            stream: Its handle.

        Returns:
            Where the graph will be, once the block is left.

        Raises:
            CaptureFailed: The driver cannot capture it.
        """
        driver, captured = self._driver, Captured()
        handle = driver.CUstream(stream)
        # Other threads may allocate meanwhile; only what this thread does is held to the rules of capture.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(driver.cuStreamBeginCapture(handle, mode))
        try:
            yield captured
        finally:
            # In any case: a stream that is left capturing takes no other work.
            ended = driver.cuStreamEndCapture(handle)
        graph = self._call(ended)
        try:
            captured.executable = self._call(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self, executable: Any, stream: int) -> None:
        """Queue a graph.

        Args:
            executable: From `capturing`.
            stream: The stream's handle.

        Raises:
            DeviceMemoryFull: The GPU's memory is full: the first launch takes some.
            LaunchFailed: The driver refuses it for another reason.
        """
        driver = self._driver
        (code,) = driver.cuGraphLaunch(executable, driver.CUstream(stream))
        if int(code) == _OUT_OF_MEMORY:
            raise DeviceMemoryFull(NAME, "the GPU's memory is full (a CUDA graph cannot be launched)")
        if int(code) != 0:
            raise LaunchFailed(str(code))

    def destroy(self, executable: Any) -> None:
        """Give a graph back."""
        self._driver.cuGraphExecDestroy(executable)

    def _call(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        if int(code) != 0:
            raise CaptureFailed(f"the driver answers {code}")
        return values[0] if values else None


class Captured:
    """Is where a captured graph will be."""

    executable: Any = None


@contextmanager
def named_errors(cuda: Any, stream: Any = None) -> Iterator[None]:
    """Turn what pycuda raises into errors that say what happened to the GPU.

    Args:
        cuda: The module `pycuda.driver`.
        stream: To ask whether the device still answers; None to ask the whole context.

    Raises:
        DeviceMemoryFull: Memory ran out, on the GPU or of the page-locked kind.
        DeviceLost: The GPU does not answer any more.
        EngineFailed: Anything else.
    """
    try:
        yield
    except cuda.MemoryError as error:
        raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({_line(error)})") from error
    except cuda.Error as error:
        if not _answers(cuda, stream):
            raise DeviceLost(NAME, f"the GPU stopped answering ({_line(error)})") from error
        raise EngineFailed(NAME, _line(error)) from error


def _answers(cuda: Any, stream: Any) -> bool:
    """Tell whether the device still works: after a fault every call to it fails."""
    try:
        # The whole context cannot be waited for while another network of it captures.
        (cuda.Context if stream is None else stream).synchronize()
    except cuda.Error:
        return False
    return True


def _scratch_bytes(engine: Any) -> int:
    # TensorRT 10 counts in 64 bits under a new name, 11 has no other.
    name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
    return max(256, int(getattr(engine, name)))


def _capture_api() -> CaptureApi | None:
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        _log.info("no CUDA graphs: the package cuda-bindings is not installed")
        return None
    return CaptureApi(driver)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
