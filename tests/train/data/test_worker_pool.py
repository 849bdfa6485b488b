"""Leaving a pool of workers ends them at once, whatever they do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.waiting import wait_for
from train.data.worker_pool import worker_pool

LARGE = 400_000_000
"""Bytes of a result that takes a while to send."""
LIMIT_S = 60.0


def sleep_long(started: Path) -> None:
    started.touch()
    time.sleep(600)


def return_much(started: Path) -> bytes:
    much = bytes(LARGE)
    started.touch()
    return much


def test_a_worker_in_a_task_is_ended(tmp_path: Path) -> None:
    """Its future and those behind it fail or are cancelled."""
    futures: list[Future[None]] = []
    with worker_pool(1) as pool:
        futures += [pool.submit(sleep_long, tmp_path / str(number)) for number in range(4)]
        wait_for((tmp_path / "0").exists, LIMIT_S)
        left = time.monotonic()
    assert time.monotonic() - left < 30
    for future in futures:
        with pytest.raises((BrokenProcessPool, CancelledError)):
            future.result(timeout=0)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process")
def test_a_worker_that_is_starting_ignores_ctrl_c(tmp_path: Path) -> None:
    """The terminal sends it to all processes; the worker prints no traceback, and the parent decides."""
    with worker_pool(1) as pool:
        future = pool.submit(Path.touch, tmp_path / "worked")
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        future.result(timeout=LIMIT_S)
    assert (tmp_path / "worked").exists()


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3, 0.5])
def test_a_pool_can_be_left_while_a_result_is_sent(tmp_path: Path, delay_s: float) -> None:
    """A worker that is ended in the middle of a result would leave the pool waiting for the rest for ever."""
    with worker_pool(1) as pool:
        future = pool.submit(return_much, tmp_path / "started")
        wait_for((tmp_path / "started").exists, LIMIT_S)
        time.sleep(delay_s)
    # Unless it was ended in the task, the result is whole.
    with suppress(BrokenProcessPool):
        assert len(future.result(timeout=0)) == LARGE
