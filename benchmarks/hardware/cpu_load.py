"""CPU load and memory: of this process, of its threads, and of the whole machine.

with CpuLoad() as load:
    work()
print(load.own_cores, load.machine_cores)
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

STAT = Path("/proc/stat")
STATUS = Path("/proc/self/status")
TASKS = Path("/proc/self/task")


def busy_s(stat: str, *, ticks_per_s: int) -> float:
    """Return the busy CPU seconds of the whole machine since it started.

    Args:
        stat: Content of /proc/stat.
        ticks_per_s: Clock ticks per second of the kernel.

    Raises:
        ValueError: The content has another format.

    Source: proc_stat(5).
    """
    words = stat.partition("\n")[0].split()
    if words[:1] != ["cpu"] or len(words) < 9:
        raise ValueError("/proc/stat has no line for all CPUs")
    # User time includes that of guests. Stolen time counts as busy, as it cannot be used here.
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / ticks_per_s


def threads_s(tasks: Path = TASKS) -> dict[str, float]:
    """Return the CPU seconds of this process's running threads, by the first word of their names.

    Args:
        tasks: Folder in which the kernel lists them.

    Returns:
        Seconds so far; those of a pool's threads, such as `crops_0`, under its prefix. Threads that Python
        did not start, such as those of an engine, are under `workers`. Empty on systems without /proc.
    """
    names = {thread.native_id: _kind(thread.name) for thread in threading.enumerate()}
    spent: dict[str, float] = {}
    with suppress(OSError):
        for task in tasks.iterdir():
            with suppress(OSError):
                # The second field is a name that may contain spaces; it ends with the last bracket.
                words = (task / "stat").read_text().rpartition(")")[2].split()
                name = names.get(int(task.name), "workers")
                ticks = int(words[11]) + int(words[12])
                spent[name] = spent.get(name, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return spent


def _kind(name: str) -> str:
    """Return the first word of a thread's name, without the number that a pool appends to it."""
    return name.partition(" ")[0].rpartition("_")[0] or name.partition(" ")[0]


def memory_mib() -> float | None:
    """Return the resident memory of this process in MiB; None on systems without /proc."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return None


@dataclass
class CpuLoad:
    """CPU time spent inside a `with` block.

    Attributes:
        wall_s: Duration of the block.
        own_s: CPU seconds of this process, all threads together.
        machine_s: CPU seconds of the whole machine; None on systems without /proc.
        by_thread_s: CPU seconds by thread, named as in `threads_s`.
    """

    wall_s: float = 0.0
    own_s: float = 0.0
    machine_s: float | None = None
    by_thread_s: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._threads = threads_s()
        self._machine = _machine_s()
        self._own = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s = time.perf_counter() - self._wall
        self.own_s = time.process_time() - self._own
        machine = _machine_s()
        if machine is not None and self._machine is not None:
            self.machine_s = machine - self._machine
        self.by_thread_s = {
            name: max(0.0, spent_s - self._threads.get(name, 0.0)) for name, spent_s in threads_s().items()
        }

    @property
    def own_cores(self) -> float:
        """Number of cores that this process kept busy."""
        return self.own_s / self.wall_s

    @property
    def machine_cores(self) -> float | None:
        """Number of cores busy in the whole machine; None on systems without /proc."""
        return None if self.machine_s is None else self.machine_s / self.wall_s


def _machine_s() -> float | None:
    try:
        return busy_s(STAT.read_text(), ticks_per_s=os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return None
