"""Whether there is an NVIDIA driver, and which GPU: asked before anything of TensorRT or pycuda is made.

Without a driver TensorRT's runtime ends the whole process with a segmentation fault and pycuda cannot even be
imported, so the driver itself is asked first, through nothing but ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import EngineUnavailable

NAME = "tensorrt"
LIBRARY = "libcuda.so.1"
ADVICE = "use --engine onnxruntime or --engine auto"

# CUdevice_attribute of the driver API.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """Names a GPU.

    Args:
        name: As the driver calls it.
        capability: Its compute capability, as `(9, 0)`.
        memory_bytes: All of its memory.
        cuda: The newest CUDA version that the driver serves, as `(13, 0)`.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    cuda: tuple[int, int]

    @property
    def architecture(self) -> str:
        """The compute capability as compilers write it: `sm_90`."""
        major, minor = self.capability
        return f"sm_{major}{minor}"


def probe(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """Ask the driver for the first GPU that this process may use.

    Args:
        load: Loads a shared library by name.

    Returns:
        The GPU.

    Raises:
        EngineUnavailable: There is no driver, it does not start, or it serves no GPU.
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
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=(capability[0], capability[1]),
        memory_bytes=memory.value,
        cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def leave_context(handle: int, load: Callable[[str], Any] = ctypes.CDLL) -> None:
    """Take a CUDA context off this thread if it is still the current one.

    pycuda gives a primary context back without doing so.

    Args:
        handle: The context's address.
        load: Loads a shared library by name.
    """
    library = load(LIBRARY)
    current = ctypes.c_void_p()
    if library.cuCtxGetCurrent(ctypes.byref(current)) == 0 and current.value == handle:
        library.cuCtxPopCurrent_v2(ctypes.byref(current))


def _call(library: Any, function: str, *arguments: Any) -> None:
    code = getattr(library, function)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        said = text.value.decode(errors="replace") if text.value else "no description"
        raise EngineUnavailable(NAME, f"the NVIDIA driver fails in {function}: {said} ({code})", ADVICE)
