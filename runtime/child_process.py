"""Start of a child process that ends with its parent."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection


def begin_child(lifeline: connection.Connection) -> None:
    """Let this process end when its parent closes its end of a pipe or is killed, and ignore Ctrl-C.

    Args:
        lifeline: End of a pipe through which nothing is ever sent.
    """
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()


def _exit_with_parent(lifeline: connection.Connection) -> None:
    connection.wait([lifeline])
    os._exit(1)
