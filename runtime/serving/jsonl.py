"""JSON Lines output of every published message, to a file or standard output; no message is dropped."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import JsonlFailed
from runtime.serving.client_queue import EncodedMessage

logger = logging.getLogger(__name__)

STDOUT = "-"


class JsonlWriter:
    """Writer of one line per published message, without delay; a sink of the broadcaster.

    Lines are written by a separate thread, so that a paused reader of a pipe delays neither the detector nor
    the clients; unwritten lines wait in memory. An existing file is appended to; a `seq` of 1 starts the next
    run.

    Args:
        target: Path, or `-` for standard output.
        on_failure: Called once, on the writing thread, when a line cannot be written. `closed` of the error
            is True if the reader of a pipe has left, which is a normal end.

    Raises:
        JsonlFailed: The file cannot be opened.
    """

    def __init__(self, target: str | Path, *, on_failure: Callable[[JsonlFailed], None]) -> None:
        self.target = str(target)
        self.failure: JsonlFailed | None = None
        self._on_failure = on_failure
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            # A descriptor of its own, without a buffer that Python would flush into a closed pipe at exit.
            self._descriptor = (
                os.dup(1)
                if self.target == STDOUT
                else os.open(self.target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            )
        except OSError as error:
            raise JsonlFailed(self.target, error) from error
        # A daemon thread: a reader that never continues must not keep the program from ending.
        self._thread = threading.Thread(target=self._write_all, name="jsonl", daemon=True)
        self._thread.start()

    def __call__(self, encoded: EncodedMessage) -> None:
        """Queue a message for writing; returns at once."""
        if self.failure is None:
            self._lines.put(encoded.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After Ctrl-C the program must not wait for a reader; at a normal end every line is written.
        self.close(timeout_s=None if exc_type is None else 1.0)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Write the waiting lines and stop.

        Args:
            timeout_s: Maximum time to wait for a reader that does not read; None for no limit.
        """
        self._lines.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("%s is not being read: %d lines are lost", self.target, self._lines.qsize())

    def _write_all(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._write(line + b"\n")
        except OSError as error:
            self.failure = JsonlFailed(self.target, error)
            self._on_failure(self.failure)
        finally:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                # Some parent processes pass on a pipe in non-blocking mode.
                select.select([], [self._descriptor], [])
