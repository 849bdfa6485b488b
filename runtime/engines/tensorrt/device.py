"""CUDA calls around TensorRT: the GPU's primary context, translation of pycuda's errors, CUDA graph capture.

Source:
    CUDA driver API, "Primary context management", "Stream management" (capture modes), "Graph management".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.engines.tensorrt.driver import NAME, leave_context
from runtime.engines.tensorrt.library import one_line
from runtime.errors import DeviceLost, DeviceMemoryFull, EngineFailed

if TYPE_CHECKING:
    from typing import SupportsInt

    from runtime.engines.tensorrt.api import CudaDriver, CudaStream, Pycuda

# CUDA_ERROR_OUT_OF_MEMORY
_OUT_OF_MEMORY = 2

_log = logging.getLogger(__name__)


class Device:
    """The first GPU's primary context, which torch and other libraries of the process use too.

    Args:
        cuda: The module `pycuda.driver`; `probe` has found a driver.

    Attributes:
        cuda: The module `pycuda.driver`.
        queueing: Lock to hold while queueing work, but not while waiting for it: a runner must not queue work
            during a capture of another runner.

    Raises:
        DeviceMemoryFull: The GPU has too little memory left for a context.
        EngineFailed: The driver cannot create a context.
    """

    def __init__(self, cuda: Pycuda) -> None:
        self.cuda = cuda
        try:
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()
        except cuda.MemoryError as error:
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({one_line(error)})") from error
        except cuda.Error as error:
            raise EngineFailed(NAME, one_line(error)) from error
        self.queueing = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread inside the `with` block."""
        self._context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    def close(self) -> None:
        """Release the context; everything allocated in it must have been freed."""
        handle = int(self._context.handle)
        try:
            # Pushed first, since pycuda leaks a context that is detached on another thread than retained it.
            self._context.push()
            self._context.detach()
        except self.cuda.Error as error:
            # A lost device cannot release anything.
            _log.debug("%s", error)
        leave_context(handle)


@contextmanager
def translated_errors(cuda: Pycuda, stream: CudaStream | None = None) -> Iterator[None]:
    """Translate pycuda's exceptions inside the `with` block into errors of `runtime.errors`.

    Args:
        cuda: The module `pycuda.driver`.
        stream: Stream to synchronise to check whether the device still responds; None for the whole context.

    Raises:
        DeviceMemoryFull: Device memory or page-locked host memory is exhausted.
        DeviceLost: The GPU no longer responds.
        EngineFailed: Any other error of pycuda.
    """
    try:
        yield
    except cuda.MemoryError as error:
        raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({one_line(error)})") from error
    except cuda.Error as error:
        if not responds(cuda, stream):
            raise DeviceLost(NAME, f"the GPU stopped responding ({one_line(error)})") from error
        raise EngineFailed(NAME, one_line(error)) from error


def responds(cuda: Pycuda, stream: CudaStream | None) -> bool:
    """Return whether the device still works; after a fault every CUDA call fails."""
    try:
        if stream is None:
            cuda.Context.synchronize()
        else:
            # The whole context cannot be synchronised while another runner captures.
            stream.synchronize()
    except cuda.Error:
        return False
    return True


class CaptureFailed(Exception):
    """A CUDA graph could not be captured; the engine runs without it."""


class LaunchFailed(Exception):
    """The driver refused to launch a captured CUDA graph; the message is its result code."""


class GraphCapture:
    """CUDA graph capture through cuda-bindings, since pycuda has no calls for it.

    Args:
        driver: The module `cuda.bindings.driver`.
    """

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver

    def capture(self, stream: int, enqueue: Callable[[], None]) -> object:
        """Capture the work that a function queues, instead of running it.

        Args:
            stream: Stream handle.
            enqueue: Function that queues the work on the stream.

        Returns:
            The executable graph; release it with `destroy`.

        Raises:
            CaptureFailed: The driver cannot capture the work.
        """
        driver = self._driver
        handle = driver.CUstream(stream)
        # Other threads may allocate memory meanwhile, so the capture restricts only this thread.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        (code,) = driver.cuStreamBeginCapture(handle, mode)
        _check(code)
        try:
            enqueue()
        finally:
            # On errors too: a stream that is still capturing accepts no other work.
            code, graph = _pair(driver.cuStreamEndCapture(handle))
        _check(code)
        try:
            code, executable = _pair(driver.cuGraphInstantiate(graph, 0))
            _check(code)
        finally:
            driver.cuGraphDestroy(graph)
        return executable

    def launch(self, executable: object, stream: int) -> None:
        """Queue a captured graph.

        Args:
            executable: Result of `capture`.
            stream: Stream handle.

        Raises:
            DeviceMemoryFull: The GPU's memory is full; the first launch allocates some.
            LaunchFailed: The driver refuses the launch for another reason.
        """
        driver = self._driver
        (code,) = driver.cuGraphLaunch(executable, driver.CUstream(stream))
        if int(code) == _OUT_OF_MEMORY:
            raise DeviceMemoryFull(NAME, "the GPU's memory is full (a CUDA graph cannot be launched)")
        if int(code) != 0:
            raise LaunchFailed(str(code))

    def destroy(self, executable: object) -> None:
        """Release a captured graph."""
        self._driver.cuGraphExecDestroy(executable)


def _check(code: SupportsInt) -> None:
    if int(code) != 0:
        raise CaptureFailed(f"the driver returns {code}")


def _pair(
    result: tuple[SupportsInt, object] | tuple[SupportsInt],
) -> tuple[SupportsInt, object]:
    """Return the result code and the value, which may be absent on failure."""
    return result[0], result[1] if len(result) > 1 else None
