"""Every broadcast message as a line of JSON, in a file or on standard output; nothing is ever dropped."""

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
    """Writes each message as one line, as soon as it is published; a sink of the hub.

    A thread of its own writes, so that a reader who pauses holds up neither the detector nor a client: what
    it has not read waits in memory. A file is appended to; a `seq` that starts over marks the next run in it.

    Args:
        target: A path, or `-` for standard output.
        on_failure: Called once, on the writing thread, when a line cannot be written. The error's `closed`
            tells that the reader of a pipe has left, which ends a program without being a fault.

    Raises:
        RecordingFailed: The file cannot be opened.
    """

    def __init__(self, target: str | Path, *, on_failure: Callable[[JsonlFailed], None]) -> None:
        self.target = str(target)
        self.failure: JsonlFailed | None = None
        self._on_failure = on_failure
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            # Its own descriptor and no buffer: nothing is left to be flushed at exit into a closed pipe.
            self._descriptor = (
                os.dup(1)
                if self.target == STDOUT
                else os.open(self.target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            )
        except OSError as error:
            raise JsonlFailed(self.target, error) from error
        # A daemon: a reader who never reads on must not keep the program from ending.
        self._thread = threading.Thread(target=self._write_all, name="recording", daemon=True)
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
        # Someone who presses Ctrl-C must not wait for a reader; at the end of a file, every line counts.
        self.close(timeout_s=None if exc_type is None else 1.0)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Write what still waits, and stop.

        Args:
            timeout_s: How long to wait for a reader that does not read; None waits for ever.
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
                # Some parents hand down a pipe in non-blocking mode.
                select.select([], [self._descriptor], [])
