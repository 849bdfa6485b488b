"""Which TensorRT is installed: 8.6, 10, 11 or the one for RTX cards, all told apart by what they have."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from runtime.engines.tensorrt.driver import ADVICE, NAME
from runtime.errors import DeviceMemoryFull, EngineUnavailable

# The full library comes first: it runs on every GPU, and its engines are tuned on the one at hand.
MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
INSTALL = "install unmask with its extra `tensorrt` (TensorRT and pycuda), or "

_log = logging.getLogger(__name__)


def load_tensorrt(
    modules: Sequence[str] = MODULES, load: Callable[[str], Any] = importlib.import_module
) -> Any:
    """Import the first TensorRT that is there and whole.

    Args:
        modules: Names to try, in this order.
        load: Imports a module by name.

    Returns:
        The module.

    Raises:
        EngineUnavailable: There is none, or its libraries are missing.
    """
    broken = ""
    for name in modules:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                broken = broken or f"the package {name} lacks {error.name}"
        # TensorRT loads its shared libraries when it is imported.
        except (ImportError, OSError) as error:
            broken = broken or f"the package {name} cannot be loaded ({_line(error)})"
    raise EngineUnavailable(NAME, broken or "TensorRT is not installed", INSTALL + ADVICE)


def load_pycuda(load: Callable[[str], Any] = importlib.import_module) -> Any:
    """Import pycuda's driver module; only where `probe` has found a driver.

    Args:
        load: Imports a module by name.

    Returns:
        The module.

    Raises:
        EngineUnavailable: It is not installed or does not fit the driver.
    """
    try:
        return load("pycuda.driver")
    except ModuleNotFoundError:
        raise EngineUnavailable(NAME, "pycuda is not installed", INSTALL + ADVICE) from None
    except ImportError as error:
        reason = f"pycuda cannot be loaded ({_line(error)})"
        raise EngineUnavailable(NAME, reason, INSTALL + ADVICE) from error


def is_rtx(trt: Any) -> bool:
    """Tell whether a TensorRT module is the one for RTX cards.

    It builds without a GPU, its engines run on any supported card, and it has its own CUDA graphs.
    """
    return "tensorrt_rtx" in str(trt.__name__)


def library_name(trt: Any) -> str:
    """Name a TensorRT module with its version."""
    return f"{'TensorRT-RTX' if is_rtx(trt) else 'TensorRT'} {trt.__version__}"


@cache
def tensorrt_log(trt: Any) -> Any:
    """Give what TensorRT tells its news: to the log at level DEBUG, the last errors kept in `errors`.

    What matters is raised; printed as well, it would land in the middle of the user's terminal. TensorRT
    keeps the first logger of the process for good, so there is only one, and it is never given up.

    Args:
        trt: The TensorRT module.

    Returns:
        An `ILogger`.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            text = " ".join(str(message).split())
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                self.last = text
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(text)
            _log.debug("%s", text)

        def said(self) -> str:
            """Give the last error in one line, or admit that there is none."""
            return self.errors[-1].rstrip(".") if self.errors else "TensorRT gave no reason"

        def full(self) -> str:
            """Give the error that tells of exhausted memory, which is seldom the last one; or nothing."""
            told = (text for text in self.errors if "outofmemory" in text.lower().replace(" ", ""))
            return next(told, "")

    return Logger()


def start(trt: Any, kind: str) -> Any:
    """Make a builder or a runtime, which brings CUDA up where it is not yet.

    Args:
        trt: The TensorRT module.
        kind: `Builder` or `Runtime`.

    Returns:
        It.

    Raises:
        DeviceMemoryFull: The GPU's memory is full.
        EngineUnavailable: CUDA does not come up: mostly the driver is too old for this TensorRT.
    """
    logger = tensorrt_log(trt)
    logger.last = ""
    try:
        return getattr(trt, kind)(logger)
    # What TensorRT's binding raises when it was given nothing; the reason is a warning in its log.
    except TypeError as error:
        said = logger.last.rstrip(".") or _line(error)
        if re.search(r"failure with error:? 2\b", said):
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({said})") from error
        raise EngineUnavailable(
            NAME, f"{library_name(trt)} does not start on this driver ({said})", ADVICE
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
