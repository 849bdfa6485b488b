"""Ctrl-C and SIGTERM, which end a command alike, also while its libraries are being imported."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt as Ctrl-C does; for the main thread.

    The handlers stay afterwards, for a signal that comes while the program ends.

    Raises:
        KeyboardInterrupt: A signal has come, even if a library has made another exception of it.
    """
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, stop)
    # A program in the background of a shell may have been started with Ctrl-C ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except ImportError as error:
        # What interrupts the initialisation of a library in C arrives here as its failure.
        if stopped:
            raise KeyboardInterrupt from error
        raise
