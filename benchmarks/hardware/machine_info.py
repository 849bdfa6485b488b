"""What a measurement was made on: without it a number means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from runtime.engines.cpu import usable_cores

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
    """Describe the hardware and the libraries.

    Returns:
        `cpu`, `cores` (physical, that this process may use), `threads`, `memory_gib`, `system`, `python` and
        `libraries` with the version of each that is installed, as JSON values.
    """
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "threads": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


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
