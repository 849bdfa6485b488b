"""Pool of worker processes for videos, which end with the process that started them.

with worker_pool(4, begin, (spec,)) as pool:
    pool.submit(work, path)
for result in ordered_results(work, paths, workers=4, crashed=None, begin=begin, args=(spec,)):
    ...
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

from runtime.child_process import begin_child, signals_held_back

Item = TypeVar("Item")
Result = TypeVar("Result")

_between_tasks = threading.Lock()
"""Held by the main thread of a worker, except while it begins and while it works on a task."""


class _Pool(ProcessPoolExecutor):
    """Executor whose workers can be ended while they work on a task, and at no other time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a task; see `ProcessPoolExecutor.submit`, which may start a process for it."""
        with signals_held_back():
            return super().submit(_work_on, fn, *args, **kwargs)


@contextmanager
def worker_pool(
    workers: int, begin: Callable[..., object] | None = None, args: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes; on leaving, those that are still busy are ended.

    Args:
        workers: Number of processes.
        begin: Called in each process before its first task; None for nothing.
        args: Arguments of `begin`.
    """
    # Spawned, not forked: threads of FFmpeg and onnxruntime do not survive a fork.
    context = multiprocessing.get_context("spawn")
    lifeline, parent_end = context.Pipe(duplex=False)
    stop, stop_sender = context.Pipe(duplex=False)
    pool = _Pool(workers, mp_context=context, initializer=_begin, initargs=(lifeline, stop, begin, args))
    with lifeline, parent_end, stop:
        try:
            yield pool
        finally:
            stop_sender.close()
            pool.shutdown(cancel_futures=True)


def ordered_results(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    crashed: Result,
    begin: Callable[..., object] | None = None,
    args: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Process items in parallel and yield their results in the order of the items.

    Args:
        work: Called with each item in a worker process.
        items: The items.
        workers: Maximum number of processes.
        crashed: Result of an item that crashes its process.
        begin: Called in each process before its first item; None for nothing.
        args: Arguments of `begin`.
    """
    left = deque(items)
    while left:
        with worker_pool(min(workers, len(left)), begin, args) as pool:
            running: deque[tuple[Item, Future[Result]]] = deque()
            try:
                while left or running:
                    while left and len(running) < 2 * workers:
                        running.append((left[0], pool.submit(work, left[0])))
                        left.popleft()
                    result = running[0][1].result()
                    running.popleft()
                    yield result
            except BrokenProcessPool:
                # One of the running items crashed its process. Which one is unknown, so they run one by one.
                suspects = [item for item, _ in running]
            else:
                return
        for item in suspects:
            with worker_pool(1, begin, args) as pool:
                try:
                    result = pool.submit(work, item).result()
                except BrokenProcessPool:
                    result = crashed
            yield result


def _begin(
    lifeline: connection.Connection,
    stop: connection.Connection,
    begin: Callable[..., object] | None,
    args: tuple[Any, ...],
) -> None:
    begin_child(lifeline)
    threading.Thread(target=_end_in_task, args=(stop,), daemon=True).start()
    if begin is not None:
        begin(*args)
    _between_tasks.acquire()


def _work_on(work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    _between_tasks.release()
    try:
        return work(*args, **kwargs)
    finally:
        _between_tasks.acquire()


def _end_in_task(stop: connection.Connection) -> None:
    """End this worker once the pool is left, but not while it sends a result: the pool waits for the rest."""
    connection.wait([stop])
    with _between_tasks:
        os._exit(1)
