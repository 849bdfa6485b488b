"""Number of CPU cores that this process may use; see `docs/decisions/cpu-cores.md`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path


def usable_cores(cpus: Iterable[int] | None = None, *, root: Path = Path("/")) -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Two hyper-threads share one core's arithmetic units, and the CPU count ignores a container's quota: more
    threads than this wait for each other.

    Args:
        cpus: Logical CPUs; None for those that the process is bound to.
        root: Folder with the kernel's `sys` and `proc`. Without them (not Linux) logical CPUs are counted.

    Source:
        Linux Documentation/admin-guide/cputopology.rst; cgroup-v2.rst, `cpu.max`.
    """
    logical = _affinity() if cpus is None else set(cpus)
    cores = {_siblings(cpu, root) for cpu in logical}
    return max(1, min([len(cores), *_quotas(root)]))


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int, root: Path) -> str:
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return topology.read_text().strip()
    except OSError:
        return str(cpu)


def _quotas(root: Path) -> list[int]:
    """Read the CPU quotas of the process's control group and of all groups around it, rounded up."""
    mount = root / "sys/fs/cgroup"
    groups = [mount]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, _, path = line.partition("::")
        if number == "0":
            group = mount / path.lstrip("/")
            groups += [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]
    quotas = []
    for group in groups:
        try:
            quota, period = (group / "cpu.max").read_text().split()
            quotas.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):
            # No such file, or the word "max": no quota.
            continue
    return quotas
