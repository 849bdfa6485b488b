"""Start of a child process that ends with its parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

# They reach the whole process group of a terminal or a service; only the parent handles them.
_OF_THE_GROUP = {signal.SIGINT, signal.SIGHUP} if hasattr(signal, "SIGHUP") else {signal.SIGINT}


def start_child(process: BaseProcess) -> None:
    """Start a process that gets no signal of its group until it calls `begin_child`.

    Args:
        process: The process, with the start method `spawn`.

    Raises:
        OSError: The system cannot start it.
    """
    with signals_held_back():
        process.start()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Hold signals of the group back from processes started in the block until they call `begin_child`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # The child, and the process with which `multiprocessing` cleans up, inherit the mask.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
    try:
        resource_tracker.ensure_running()
        # It has unblocked one of them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def start_connected(
    context: SpawnContext,
    work: Callable[..., None],
    lifeline: connection.Connection,
    *arguments: Any,
    name: str,
) -> tuple[SpawnProcess, connection.Connection]:
    """Start a process as `start_child` does, and return it with this end of a pipe to it.

    Args:
        context: Context with the start method `spawn`.
        work: Function that the process calls with its lifeline, its end of the pipe, and the arguments.
        lifeline: See `begin_child`.
        arguments: Further arguments of the function.
        name: Name of the process.

    Raises:
        OSError: The system cannot start it: there is no memory, or there are too many processes or files.
    """
    pipe, child_end = context.Pipe()
    process = context.Process(target=work, args=(lifeline, child_end, *arguments), daemon=True, name=name)
    with child_end:
        try:
            start_child(process)
        except OSError:
            pipe.close()
            raise
    return process, pipe


def begin_child(lifeline: connection.Connection) -> None:
    """Let this process end when its parent closes its end of a pipe or is killed; ignore Ctrl-C and SIGHUP.

    Args:
        lifeline: End of a pipe through which nothing is ever sent.
    """
    for number in _OF_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()


def _exit_with_parent(lifeline: connection.Connection) -> None:
    connection.wait([lifeline])
    os._exit(1)
