"""Number of CPU cores that this process may keep busy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path


def usable_cores(cpus: Iterable[int] | None = None, *, sysfs: Path = Path("/sys")) -> int:
    """Count the physical cores that this process may use.

    Two hyper-threads share one core's arithmetic units, and a container's quota is not seen in the CPU count:
    more threads than this only wait for each other.

    Args:
        cpus: Logical CPUs; None for those that the process is bound to.
        sysfs: Where the kernel tells about itself.

    Returns:
        At least 1. Where the kernel does not tell (not Linux), the logical CPUs.

    Source:
        Linux Documentation/admin-guide/cputopology.rst; cgroup-v2.rst, `cpu.max`.
    """
    logical = _bound_cpus() if cpus is None else set(cpus)
    cores = {_siblings(cpu, sysfs) for cpu in logical}
    return max(1, min(len(cores), _quota(sysfs)))


def _bound_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int, sysfs: Path) -> str:
    topology = sysfs / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return topology.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(sysfs: Path) -> int:
    try:
        quota, period = (sysfs / "fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        # No such file, or the word "max": no quota.
        return os.cpu_count() or 1
