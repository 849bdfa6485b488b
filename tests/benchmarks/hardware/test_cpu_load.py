"""CPU time from /proc, and memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from benchmarks.hardware.cpu_load import STAT, CpuLoad, busy_s, memory_mib, threads_s

LINUX = pytest.mark.skipif(not STAT.exists(), reason="no /proc on this system")


def test_idle_time_is_not_busy() -> None:
    """User, nice, system, both interrupts and stolen time count; idle, waiting and guests do not."""
    text = "cpu  100 20 30 9999 8888 4 5 6 77 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert busy_s(text, ticks_per_s=10) == 16.5


def test_other_content_is_an_error() -> None:
    """Content of another format does not count as zero seconds."""
    with pytest.raises(ValueError, match="no line"):
        busy_s("nonsense", ticks_per_s=100)


def test_cpu_time_of_a_block() -> None:
    """CPU time is counted while it is spent; sleeping is free."""
    with CpuLoad() as load:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    assert load.own_s >= 0.05
    with CpuLoad() as idle:
        time.sleep(0.1)
    assert idle.wall_s >= 0.1
    assert idle.own_s < load.own_s


@LINUX
@pytest.mark.parametrize("name", ["reader of something", "reader_12"])
def test_threads_are_counted_by_name(name: str) -> None:
    """CPU time of a thread is under the first word of its name, without the number of a pool's thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=work, name=name)
    thread.start()
    try:
        while threads_s().get("reader", 0.0) < 0.03:
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    assert "reader" not in threads_s()


def test_no_threads_without_proc(tmp_path: Path) -> None:
    """Without /proc the result is empty."""
    assert threads_s(tmp_path / "none") == {}


@LINUX
def test_memory() -> None:
    """The resident memory of Python is several MiB."""
    assert (memory_mib() or 0.0) > 5
