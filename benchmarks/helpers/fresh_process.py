"""One function call in a fresh process, so that its memory and its threads are its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from benchmarks.harness.errors import StepEnded

P = ParamSpec("P")
R = TypeVar("R")


def in_process(call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call a function in a fresh process and return its result.

    Args:
        call: Function of a module; it, its arguments and its result are pickled.
        arguments: Its arguments.
        named: Its keyword arguments.

    Raises:
        StepEnded: The process ended before it had a result.
        Exception: Any error of the function.
    """
    # Spawned, not forked: it shall have nothing of this process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(call, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise StepEnded(call.__name__) from error
