"""JSON Lines output of every published message, to a file, a FIFO or standard output."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import JsonlFailed, os_reason
from runtime.outputs.background_writer import BackgroundWriter
from runtime.outputs.standard_error import write_all
from runtime.serving.client_queue import EncodedMessage

logger = logging.getLogger(__name__)

STDOUT = "-"
# About 10 MB of messages: half an hour of six faces at 8 verdicts a second.
CAPACITY = 20_000
# Time between attempts to write to a full disk or to a FIFO without a reader.
RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Rotation of a recording by size: `NAME` becomes `NAME.1`, `NAME.1` becomes `NAME.2`, and so on.

    Args:
        max_bytes: Size from which a file is renamed, at least 1000; it is exceeded by one line at most.
        keep: Number of renamed files to keep, at least 1.

    Raises:
        ValueError: A value is out of its range.
    """

    max_bytes: int
    keep: int = 5

    def __post_init__(self) -> None:
        if self.max_bytes < 1000 or self.keep < 1:
            raise ValueError(
                f"a rotation needs at least 1000 bytes and 1 file to keep, not {self.max_bytes}, {self.keep}"
            )

    def rotate(self, path: str) -> None:
        """Rename a file and its predecessors; the oldest one is deleted.

        Raises:
            OSError: The file cannot be renamed.
        """
        for number in range(self.keep, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}.{number - 1}", f"{path}.{number}")
        os.replace(path, f"{path}.1")


class JsonlWriter:
    """Writer of one line per published message; a sink of the broadcaster.

    Lines are written by a separate thread, so that a full disk or a paused reader of a pipe delays neither
    the detector nor the clients. Unwritten lines wait in memory, up to `capacity`; then the oldest are lost.
    A line that cannot be written is tried again, and the failure is logged once. An existing file is appended
    to, on a new line if its last one is incomplete; a `seq` of 1 marks the start of a run.

    Args:
        target: Path, or `-` for standard output.
        on_closed: Called once, on the writing thread, when the reader of standard output has closed it, as
            `head` does. With a named FIFO, the writer waits for the next reader instead.
        capacity: Maximum number of waiting lines.
        retry_s: Time in seconds between attempts to write.
        rotation: Rotation of a regular file; None for none.

    Raises:
        JsonlFailed: The file cannot be opened.
    """

    def __init__(
        self,
        target: str | Path,
        *,
        on_closed: Callable[[], None],
        capacity: int = CAPACITY,
        retry_s: float = RETRY_S,
        rotation: Rotation | None = None,
    ) -> None:
        self.name = "jsonl"
        self.target = str(target)
        self.failure: JsonlFailed | None = None
        """Why lines cannot be written at present; None if they can."""
        self.closed = False
        """Whether the reader of standard output has closed it."""
        self._on_closed = on_closed
        self._retry_s = retry_s
        self._reopening = threading.Event()
        self._reported_lost = 0
        self._rotation = rotation
        # Whether the file may end in an incomplete line, after a killed program or a full disk.
        self._end_unknown = True
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise JsonlFailed(self.target, error) from error
        self._writer: BackgroundWriter[bytes] = BackgroundWriter("jsonl", self._write_line, capacity=capacity)

    def __call__(self, encoded: EncodedMessage) -> None:
        """Queue a message for writing; returns at once."""
        if not self.closed:
            self._writer.put(encoded.data + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl-C the program must not wait for a reader; at a normal end every line is written.
        self.close(timeout_s=None if kind is None else 1.0)

    @property
    def lost(self) -> int:
        """Number of lines lost: the queue was full, or they could not be written."""
        return self._writer.lost

    def reopen(self) -> None:
        """Open the path again, after the file has been renamed by a log rotation; returns at once."""
        if self.target != STDOUT:
            self._reopening.set()
            self._writer.put(b"")

    def finish(self) -> bool:
        """Accept no more messages and return at once, with whether all lines have been written or lost."""
        return self._writer.finish()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Write the waiting lines and stop.

        Args:
            timeout_s: Maximum time to wait for a reader that does not read; None for no limit.
        """
        stopped = self._writer.close(timeout_s=timeout_s)
        if (lost := self.lost - self._reported_lost) and not self.closed:
            logger.warning("%s is incomplete: %d lines are lost", self.target, lost)
            self._reported_lost += lost
        # Left open if the thread is still blocked in a call on it.
        if stopped and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int | None:
        """Open the target; None if it is a FIFO without a reader."""
        if self.target == STDOUT:
            return os.dup(1)
        # Opening a FIFO without a reader, or a serial line, would block.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
        try:
            return os.open(self.target, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(self.target).st_mode):
                return None
            raise

    def _write_line(self, line: bytes) -> None:
        """Write a line, trying again until it is written or the writer closes."""
        while not self.closed:
            try:
                self._open_as_needed()
                self._write(line)
            except BrokenPipeError:
                self._reader_left()
            except OSError as error:
                self._fail(error)
                if self._writer.closing.wait(self._retry_s):
                    raise
            else:
                self._succeed()
                return

    def _open_as_needed(self) -> None:
        if self._descriptor is None:
            self._descriptor = self._open()
            if self._descriptor is None:
                raise OSError(errno.ENXIO, "no process reads it")
        if self._reopening.is_set():
            self._reopening.clear()
            try:
                reopened = self._open()
            except OSError as error:
                logger.error(
                    "cannot open %s again: %s; the old file stays in use", self.target, os_reason(error)
                )
                return
            os.close(self._descriptor)
            self._descriptor, self._end_unknown = reopened, True
            logger.info("%s: opened again", self.target)
            if reopened is None:
                raise OSError(errno.ENXIO, "no process reads it")

    def _write(self, line: bytes) -> None:
        assert self._descriptor is not None
        if not line:
            return
        if self._end_unknown and not _ends_in_line_break(self._descriptor):
            line = b"\n" + line
        self._end_unknown = True
        write_all(self._descriptor, line)
        self._end_unknown = False
        if self._rotation is not None and self.target != STDOUT:
            self._rotate(self._rotation)

    def _rotate(self, rotation: Rotation) -> None:
        """Rename the file if it is large enough; if that fails, it grows on, which is logged once."""
        assert self._descriptor is not None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < rotation.max_bytes:
            return
        try:
            rotation.rotate(os.path.realpath(self.target))
            descriptor = self._open()
        except OSError as error:
            logger.error("cannot rotate %s: %s; it grows without a limit", self.target, os_reason(error))
            self._rotation = None
            return
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _reader_left(self) -> None:
        """Close the output, unless it is a named FIFO, which another reader may open."""
        if self.target == STDOUT or not os.path.exists(os.path.realpath(self.target)):
            self.closed = True
            self._on_closed()
        elif self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fail(self, error: OSError) -> None:
        if self.failure is None or self.failure.errno != error.errno:
            self.failure = JsonlFailed(self.target, error)
            logger.error("%s; trying again until it succeeds", self.failure.reason)

    def _succeed(self) -> None:
        recovered, self.failure = self.failure is not None, None
        lost = self.lost - self._reported_lost
        # Logged after a failure, or once the queue is empty, so that a slow reader does not cause many lines.
        if recovered or (lost and self._writer.waiting == 0):
            logger.warning("%s is written again; %d lines are lost", self.target, lost)
            self._reported_lost += lost


def _ends_in_line_break(descriptor: int) -> bool:
    """Return whether a file ends in a line break; True if it is empty, not a regular file or unreadable."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return True
    try:
        with open(f"/dev/fd/{descriptor}", "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except OSError:
        return True
