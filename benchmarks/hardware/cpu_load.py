"""How busy the machine is: the CPU time of this process, and of everything else beside it.

with Load() as load:
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
    """Read how long all CPUs together have been busy since the machine started.

    Args:
        stat: What /proc/stat holds.
        ticks_per_s: The kernel's clock.

    Returns:
        Seconds of CPU.

    Raises:
        ValueError: It is not what the kernel writes.

    Source: proc_stat(5).
    """
    words = stat.partition("\n")[0].split()
    if words[:1] != ["cpu"] or len(words) < 9:
        raise ValueError("no line for all CPUs in it")
    # Guests' time is in user time already, and stolen time is not ours to use.
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / ticks_per_s


def threads_s(tasks: Path = TASKS) -> dict[str, float]:
    """Give the CPU seconds of this process's living threads, by the first word of their names.

    Args:
        tasks: Where the kernel lists them.

    Returns:
        Seconds so far; threads that Python did not start, such as an engine's, stand under `workers`. Empty
        where the kernel does not tell.
    """
    names = {thread.native_id: thread.name.partition(" ")[0] for thread in threading.enumerate()}
    spent: dict[str, float] = {}
    with suppress(OSError):
        for task in tasks.iterdir():
            with suppress(OSError):
                # The second field is a name that may hold spaces; it ends with the last bracket.
                words = (task / "stat").read_text().rpartition(")")[2].split()
                name = names.get(int(task.name), "workers")
                ticks = int(words[11]) + int(words[12])
                spent[name] = spent.get(name, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return spent


def memory_mib() -> float | None:
    """Give the memory that this process holds now, in MiB; None where the kernel does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return None


@dataclass
class Load:
    """Measures while its context lasts.

    Attributes:
        wall_s: How long that was.
        own_s: CPU seconds that this process spent, all its threads together.
        machine_s: CPU seconds that the whole machine spent; None where the kernel does not tell.
        by_thread_s: CPU seconds by threads, as `threads_s` names them.
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
        """How many cores this process kept busy."""
        return self.own_s / self.wall_s

    @property
    def machine_cores(self) -> float | None:
        """How many cores were busy in all; None where the kernel does not tell."""
        return None if self.machine_s is None else self.machine_s / self.wall_s


def _machine_s() -> float | None:
    try:
        return busy_s(STAT.read_text(), ticks_per_s=os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return None
