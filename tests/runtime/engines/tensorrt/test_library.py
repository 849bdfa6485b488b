"""Import of TensorRT, and its log."""

from __future__ import annotations

import pytest

from runtime.engines.tensorrt.library import load_pycuda, load_tensorrt, tensorrt_log
from runtime.errors import EngineUnavailable
from tests.support import fake_gpu


def test_first_complete_tensorrt_is_loaded() -> None:
    """A module that cannot be loaded is skipped; if none can be, the message names the first broken one."""

    tensorrt = fake_gpu.Trt("rtx")

    def load(name: str) -> object:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        if name == "tensorrt_rtx":
            raise ModuleNotFoundError("No module", name=name)
        return tensorrt

    assert load_tensorrt(load=load) is tensorrt
    with pytest.raises(EngineUnavailable, match=r"tensorrt cannot be loaded \(libnvinfer.*extra `tensorrt`"):
        load_tensorrt(("tensorrt", "tensorrt_rtx"), load)
    with pytest.raises(EngineUnavailable, match="TensorRT is not installed"):
        load_tensorrt(("tensorrt_rtx",), load)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'pycuda'"), "pycuda is not installed"),
        (ImportError("libcuda.so.1: cannot open"), r"pycuda cannot be loaded \(libcuda"),
    ],
)
def test_missing_pycuda_is_reported(error: ImportError, reason: str) -> None:
    """The message names the extra to install."""

    def load(name: str) -> object:
        raise error

    with pytest.raises(EngineUnavailable, match=rf"{reason}.*extra `tensorrt`"):
        load_pycuda(load)


def test_log_keeps_warnings_and_errors() -> None:
    """The first out-of-memory error is found among later errors; information is not kept."""
    log = tensorrt_log(fake_gpu.Trt("10"))
    assert log.last_error() == "TensorRT gave no reason"
    severity = fake_gpu.SEVERITY
    log.logger.log(severity.WARNING, "a warning")
    log.logger.log(severity.ERROR, "CUDA  out of memory.")
    log.logger.log(severity.ERROR, "The build failed.")
    log.logger.log(severity.INFO, "information")
    assert log.latest == "The build failed."
    assert log.last_error() == "The build failed"
    assert log.memory_error() == "CUDA out of memory."
