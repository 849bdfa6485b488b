"""Pool of worker processes for videos, which end with the process that started them.

with worker_pool(4, begin, (spec,)) as pool:
    pool.submit(work, path)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any


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
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    if begin is not None:
        begin(*args)


def _exit_with_parent(lifeline: connection.Connection) -> None:
    # Nothing is ever sent: the pipe becomes readable when the parent closes it or is killed.
    connection.wait([lifeline])
    os._exit(1)
