"""Maximum number of clients, and a rate-limited log of refused connections."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

DEFAULT_MAX_CLIENTS = 1000
# Connections besides those of the clients: pages, /healthz, /metrics, and refused clients until they are
# closed.
SPARE_CONNECTIONS = 16
# Connections that are accepted in one go, before the first of them can be refused.
BACKLOG = 16
# Files that the rest of the program may still open: cameras, recordings, the model.
RESERVED_FILES = 32
INTERVAL_S = 60.0


def open_files_left() -> int | None:
    """Return how many more files this process may open; None if there is no limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        try:
            return max(limit - len(os.listdir(folder)), 0)
        except OSError:
            continue
    return max(limit - 64, 0)


def client_limit(wanted: int | None, files_left: int | None) -> int:
    """Return the maximum number of WebSocket clients.

    Args:
        wanted: Value of `--max-clients`; None for the default.
        files_left: Number of files that the process may still open; None for no limit.

    Returns:
        The wanted number, lowered to what the limit on open files leaves room for; at least 1.
    """
    limit = DEFAULT_MAX_CLIENTS if wanted is None else wanted
    if files_left is not None:
        limit = min(limit, files_left - RESERVED_FILES - BACKLOG - SPARE_CONNECTIONS)
    return max(limit, 1)


class RefusalLog:
    """Log of refused connections: the first of each cause at once, further ones as a count per minute.

    Args:
        call_later: Function that calls another one after a time in seconds, such as `loop.call_later`.
        on_refusal: Called with the cause of every refusal.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        on_refusal: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._call_later = call_later
        self._on_refusal = on_refusal
        self._unlogged: dict[str, int] = {}

    def note(self, cause: str, text: str) -> None:
        """Count a refusal.

        Args:
            cause: Cause of the refusal, one of a few words; a label of the metric.
            text: Reason and advice, in one line.
        """
        self._on_refusal(cause)
        if cause in self._unlogged:
            self._unlogged[cause] += 1
            return
        logger.warning("a connection was refused: %s", text)
        self._start_interval(cause)

    def flush(self) -> None:
        """Log all counts."""
        for cause, count in self._unlogged.items():
            if count:
                logger.warning("%d more connections were refused for this reason: %s", count, cause)
        self._unlogged.clear()

    def _start_interval(self, cause: str) -> None:
        self._unlogged[cause] = 0
        self._call_later(INTERVAL_S, lambda: self._end_interval(cause))

    def _end_interval(self, cause: str) -> None:
        if count := self._unlogged.pop(cause, 0):
            logger.warning("%d more connections were refused for this reason: %s", count, cause)
            self._start_interval(cause)
