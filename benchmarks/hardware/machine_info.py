"""Description of the hardware and the libraries that a measurement was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from runtime.engines.cpu import usable_cores

# The instruction sets that decide the speed of float32 and int8 arithmetic, in the names of /proc/cpuinfo.
INSTRUCTION_SETS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)
LIBRARIES = (
    "av",
    "dlib-bin",
    "numpy",
    "onnxruntime",
    "opencv-python",
    "openvino",
    "tensorrt",
    "torch",
    "unmask",
    "websockets",
)


def describe_machine() -> dict[str, Any]:
    """Return a description of the hardware and the libraries, as JSON values.

    Returns:
        `cpu`, `instruction_sets`, `cores` (physical, usable by this process), `threads`, `memory_gib`,
        `system`, `python`, and `libraries` with the version of each that is installed.
    """
    features = _cpuinfo(("flags", "Features")).split()
    return {
        "cpu": _cpu(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in features],
        "cores": usable_cores(),
        "threads": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def _cpu() -> str:
    return _cpuinfo(("model name",)) or platform.processor() or platform.machine()


def _cpuinfo(keys: tuple[str, ...]) -> str:
    """Return the first value of a key in /proc/cpuinfo; empty on systems without it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
