"""Import of TensorRT, pycuda and cuda-bindings, TensorRT's log, and creation of builders and runtimes."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar, cast

from runtime.engines.tensorrt.driver import ADVICE, NAME
from runtime.errors import DeviceMemoryFull, EngineUnavailable

if TYPE_CHECKING:
    from runtime.engines.tensorrt.api import (
        CudaDriver,
        EnumMember,
        IBuilder,
        IRuntime,
        Logger,
        Pycuda,
        TensorRT,
    )

# The full library is preferred: it runs on every GPU, and its engines are tuned for the GPU in use.
MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
INSTALL = "install unmask with its extra `tensorrt` (TensorRT and pycuda), or "

_Created = TypeVar("_Created")

_log = logging.getLogger(__name__)


def load_tensorrt(
    modules: Sequence[str] = MODULES, load: Callable[[str], object] = importlib.import_module
) -> TensorRT:
    """Import the first TensorRT that is installed and complete.

    Args:
        modules: Module names in order of preference.
        load: Function that imports a module by name.

    Returns:
        The module.

    Raises:
        EngineUnavailable: No TensorRT is installed, or its shared libraries are missing.
    """
    broken = ""
    for name in modules:
        try:
            return cast("TensorRT", load(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                broken = broken or f"the package {name} lacks {error.name}"
        # TensorRT loads its shared libraries when it is imported.
        except (ImportError, OSError) as error:
            broken = broken or f"the package {name} cannot be loaded ({one_line(error)})"
    raise EngineUnavailable(NAME, broken or "TensorRT is not installed", INSTALL + ADVICE)


def load_pycuda(load: Callable[[str], object] = importlib.import_module) -> Pycuda:
    """Import `pycuda.driver`. Call it only after `probe` has found a driver.

    Args:
        load: Function that imports a module by name.

    Returns:
        The module.

    Raises:
        EngineUnavailable: pycuda is not installed or does not fit the driver.
    """
    try:
        return cast("Pycuda", load("pycuda.driver"))
    except ModuleNotFoundError:
        raise EngineUnavailable(NAME, "pycuda is not installed", INSTALL + ADVICE) from None
    except ImportError as error:
        reason = f"pycuda cannot be loaded ({one_line(error)})"
        raise EngineUnavailable(NAME, reason, INSTALL + ADVICE) from error


def load_cuda_driver() -> CudaDriver | None:
    """Import `cuda.bindings.driver`, which captures CUDA graphs; return None if it is not installed."""
    try:
        return cast("CudaDriver", importlib.import_module("cuda.bindings.driver"))
    except ImportError:
        _log.info("no CUDA graphs: the package cuda-bindings is not installed")
        return None


def is_rtx(trt: TensorRT) -> bool:
    """Return whether a TensorRT module is TensorRT-RTX.

    TensorRT-RTX builds without a GPU, its engines run on any supported GPU, and it captures CUDA graphs
    itself.
    """
    return "tensorrt_rtx" in str(trt.__name__)


def library_name(trt: TensorRT) -> str:
    """Return the library's name and version, such as `TensorRT 10.9.0`."""
    return f"{'TensorRT-RTX' if is_rtx(trt) else 'TensorRT'} {trt.__version__}"


class TensorRTLog:
    """Latest messages of TensorRT; all of them also go to `logging` at level DEBUG.

    Failures are raised as exceptions, so TensorRT's own output on the terminal would only repeat them.

    Attributes:
        logger: Logger object for TensorRT's constructors.
        errors: Latest error messages, oldest first.
        latest: Latest warning or error; empty if there is none.
    """

    logger: Logger

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.latest = ""

    def last_error(self) -> str:
        """Return the latest error as one line, or a sentence saying that there is none."""
        return self.errors[-1].rstrip(".") if self.errors else "TensorRT gave no reason"

    def memory_error(self) -> str:
        """Return the first out-of-memory error, which is seldom the last error; empty if there is none."""
        matches = (text for text in self.errors if "outofmemory" in text.lower().replace(" ", ""))
        return next(matches, "")


@cache
def tensorrt_log(trt: TensorRT) -> TensorRTLog:
    """Return the process-wide log of a TensorRT module.

    TensorRT keeps the first logger until the process ends, so there is only one and it is never released.
    """
    log = TensorRTLog()
    warning, error = int(trt.ILogger.Severity.WARNING), int(trt.ILogger.Severity.ERROR)

    # The base class is known at run time only.
    class TensorRTLogger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # type: ignore[misc]

        def log(self, severity: EnumMember, message: str) -> None:
            text = " ".join(str(message).split())
            if int(severity) <= warning:
                log.latest = text
            if int(severity) <= error:
                log.errors.append(text)
            _log.debug("%s", text)

    log.logger = TensorRTLogger()
    return log


def create_builder(trt: TensorRT) -> IBuilder:
    """Create a TensorRT builder, which initialises CUDA if necessary.

    Raises:
        DeviceMemoryFull: The GPU has too little memory left.
        EngineUnavailable: CUDA cannot be initialised, usually because the driver is too old.
    """
    return _create(trt, trt.Builder)


def create_runtime(trt: TensorRT) -> IRuntime:
    """Create a TensorRT runtime, which initialises CUDA if necessary.

    Raises:
        DeviceMemoryFull: The GPU has too little memory left.
        EngineUnavailable: CUDA cannot be initialised, usually because the driver is too old.
    """
    return _create(trt, trt.Runtime)


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line."""
    return " ".join(str(error).split())


def _create(trt: TensorRT, constructor: Callable[[Logger], _Created]) -> _Created:
    log = tensorrt_log(trt)
    log.latest = ""
    try:
        return constructor(log.logger)
    # TensorRT's binding raises TypeError when the constructor returns null; the reason is a logged warning.
    except TypeError as error:
        reason = log.latest.rstrip(".") or one_line(error)
        if re.search(r"failure with error:? 2\b", reason):
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({reason})") from error
        raise EngineUnavailable(
            NAME, f"{library_name(trt)} does not start on this driver ({reason})", ADVICE
        ) from error
