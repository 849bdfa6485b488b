"""Number of CPU cores that this process may use, and turns of threads on them.

See `docs/decisions/cpu-cores.md`.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType


class Turns:
    """Context manager that at most `count` threads are in; others wait in order. It cannot be nested.

        turns = Turns(usable_cores())
        with turns:                         # in each thread
            faces = find_faces(frame)

    More threads at a time are not faster: each gets only a share of a core, and waits for the interpreter
    that the others hold, so that all of them are late. Unlike a semaphore, it passes a turn on to the thread
    that has waited longest; one that comes meanwhile cannot overtake it.

    Args:
        count: Largest number of threads at a time.

    Raises:
        ValueError: `count` is below 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        self._free = count
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


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
