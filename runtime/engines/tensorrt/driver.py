"""The NVIDIA driver and its GPU, queried through ctypes before TensorRT or pycuda is used.

Without a driver, TensorRT's runtime ends the process with a segmentation fault and pycuda cannot be imported.
The driver library is therefore queried first, with the standard library alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import EngineUnavailable

if TYPE_CHECKING:
    from runtime.engines.tensorrt.api import LibCuda

NAME = "tensorrt"
LIBRARY = "libcuda.so.1"
ADVICE = "use --engine onnxruntime or --engine auto"

# CUdevice_attribute of the driver API.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """Name and limits of a GPU.

    Args:
        name: Product name from the driver.
        capability: Compute capability, such as `(9, 0)`.
        memory_bytes: Total memory.
        cuda: Newest CUDA version that the driver supports, such as `(13, 0)`.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    cuda: tuple[int, int]

    @property
    def architecture(self) -> str:
        """Compute capability as compilers write it, such as `sm_90`."""
        major, minor = self.capability
        return f"sm_{major}{minor}"


def probe(load: Callable[[str], LibCuda] = ctypes.CDLL) -> Gpu:
    """Return the first GPU that this process may use.

    Args:
        load: Function that loads a shared library by name.

    Returns:
        The GPU.

    Raises:
        EngineUnavailable: The driver is missing, cannot be initialised, or finds no GPU.
    """
    try:
        library = load(LIBRARY)
    except OSError:
        raise EngineUnavailable(
            NAME, f"there is no NVIDIA driver on this machine ({LIBRARY} cannot be loaded)", ADVICE
        ) from None
    _call(library, "cuInit", 0)
    count, device = ctypes.c_int(), ctypes.c_int()
    _call(library, "cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise EngineUnavailable(
            NAME, "the NVIDIA driver shows no GPU to this process (is CUDA_VISIBLE_DEVICES empty?)", ADVICE
        )
    _call(library, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    version = ctypes.c_int()
    _call(library, "cuDriverGetVersion", ctypes.byref(version))
    capability = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=(capability[0], capability[1]),
        memory_bytes=memory.value,
        cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def leave_context(handle: int, load: Callable[[str], LibCuda] = ctypes.CDLL) -> None:
    """Pop a CUDA context from this thread if it is still the current one.

    pycuda releases a primary context without popping it.

    Args:
        handle: Address of the context.
        load: Function that loads a shared library by name.
    """
    library = load(LIBRARY)
    current = ctypes.c_void_p()
    if library.cuCtxGetCurrent(ctypes.byref(current)) == 0 and current.value == handle:
        library.cuCtxPopCurrent_v2(ctypes.byref(current))


def _call(library: LibCuda, function: str, *arguments: object) -> None:
    code = getattr(library, function)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        description = text.value.decode(errors="replace") if text.value else "no description"
        raise EngineUnavailable(
            NAME, f"the NVIDIA driver fails in {function}: {description} ({code})", ADVICE
        )
