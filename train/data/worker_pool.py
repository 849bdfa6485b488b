"""Pool of worker processes for videos, which end with the process that started them.

with worker_pool(4, begin, (spec,)) as pool:
    pool.submit(work, path)
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from runtime.child_process import begin_child


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
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(lifeline, begin, args)
    )
    try:
        yield pool
    finally:
        # Closing the lifeline ends workers that are still busy with a video.
        parent_end.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _begin(
    lifeline: connection.Connection, begin: Callable[..., object] | None, args: tuple[Any, ...]
) -> None:
    begin_child(lifeline)
    if begin is not None:
        begin(*args)
