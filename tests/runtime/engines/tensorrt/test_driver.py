"""The query of the NVIDIA driver, with a stand-in for libcuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from runtime.engines.tensorrt.api import LibCuda
from runtime.engines.tensorrt.driver import leave_context, probe
from runtime.errors import EngineUnavailable


class Library:
    """Stand-in for libcuda, called through ctypes."""

    def __init__(self, failing: str = "", count: int = 1, current: int = 0) -> None:
        self.failing, self.count, self.current = failing, count, current
        self.popped = 0

    def __getattr__(self, function: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if function == self.failing:
                return 100
            target: Any = getattr(arguments[0], "_obj", arguments[0]) if arguments else None
            values = {
                "cuDeviceGetCount": self.count,
                "cuDeviceTotalMem_v2": 1 << 33,
                "cuDriverGetVersion": 13020,
                "cuCtxGetCurrent": self.current,
            }
            if function in values:
                target.value = values[function]
            elif function == "cuDeviceGetName":
                arguments[0].value = b"Pretend 9000"
            elif function == "cuDeviceGetAttribute":
                target.value = {75: 9, 76: 0}[arguments[1]]
            elif function == "cuGetErrorString":
                arguments[1]._obj.value = b"no CUDA-capable device is detected"
            elif function == "cuCtxPopCurrent_v2":
                self.popped += 1
            return 0

        return call


def missing(name: str) -> NoReturn:
    raise OSError(f"{name}: cannot open shared object file")


def test_probe_returns_the_first_gpu() -> None:
    """Name, architecture, memory and CUDA version come from the driver."""
    gpu = probe(lambda name: Library())
    assert (gpu.name, gpu.architecture, gpu.cuda) == ("Pretend 9000", "sm_90", (13, 2))
    assert gpu.memory_bytes == 1 << 33


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing, "no NVIDIA driver on this machine"),
        (lambda name: Library("cuInit"), r"fails in cuInit: no CUDA-capable device is detected \(100\)"),
        (lambda name: Library(count=0), "shows no GPU to this process"),
    ],
)
def test_probe_explains_why_there_is_no_gpu(load: Callable[[str], LibCuda], reason: str) -> None:
    """Each cause has its own message, which ends with what to use instead."""
    with pytest.raises(EngineUnavailable, match=reason) as caught:
        probe(load)
    assert str(caught.value).endswith("use --engine onnxruntime or --engine auto")


@pytest.mark.parametrize(("current", "popped"), [(4711, 1), (12, 0), (0, 0)])
def test_leave_context_pops_only_the_given_context(current: int, popped: int) -> None:
    """A context of another library stays current."""
    library = Library(current=current)
    leave_context(4711, lambda name: library)
    assert library.popped == popped
