"""Standard error that never blocks its writers, even if it is not read, its disk is full or it is closed.

with StandardError() as errors:
    print("to standard error", file=sys.stderr)  # returns at once
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import select
import stat
import sys
import threading
from types import TracebackType
from typing import Self, TextIO, cast

from runtime.outputs.background_writer import BackgroundWriter

# Texts that may wait: log lines, or frames of the live table.
CAPACITY = 1000
# Longest wait for a reader on closing.
CLOSE_TIMEOUT_S = 0.3
# Longest wait until a line of `write_line` can be written.
LINE_TIMEOUT_S = 1.0
_STDERR = 2
_PIPE_BYTES = 65536
# Level of log messages between INFO and WARNING, for a normal event that somebody should see.
NOTICE = 25
# Priorities of syslog, for the lowest level of each.
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (NOTICE, 5),
    (logging.INFO, 6),
)


class StandardError(io.TextIOBase):
    """Replacement of `sys.stderr` inside a `with` block; a thread writes the text to the real one.

    What libraries in C write to file descriptor 2 is queued too: the descriptor is a pipe meanwhile. If the
    pipe is full, the text is lost, because a library would block on it.

    When more than `capacity` texts wait, the oldest are lost; their number is written once the reader
    continues. The thread writes to the file descriptor, because the lock of a Python stream would block the
    interpreter on exit.

    Args:
        capacity: Maximum number of waiting texts.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        super().__init__()
        self._target: TextIO | None = sys.stderr
        self._descriptor = _duplicate(self._target)
        self._is_terminal = self._target is not None and self._target.isatty()
        self._encoding = getattr(self._target, "encoding", None) or "utf-8"
        self._reported_lost = 0
        self._library_thread: threading.Thread | None = None
        self._writer: BackgroundWriter[str] = BackgroundWriter(
            "standard error", self._write_text, capacity=capacity
        )

    def __enter__(self) -> Self:
        sys.stderr = self
        if self._target is not None and self._descriptor is not None and self._target.fileno() == _STDERR:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            os.dup2(writing, _STDERR)
            os.close(writing)
            # The message of a crash would remain in the pipe.
            faulthandler.enable(self._descriptor)
            self._library_thread = threading.Thread(
                target=self._forward, args=(reading,), name="library messages", daemon=True
            )
            self._library_thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.stderr is self:
            sys.stderr = cast("TextIO", self._target)  # None if it was closed
        if self._library_thread is not None and self._descriptor is not None:
            faulthandler.disable()
            # Closes the last writing end of the pipe, unless another process has it.
            os.dup2(self._descriptor, _STDERR)
            self._library_thread.join(CLOSE_TIMEOUT_S)
        # The descriptor stays open if the thread is still blocked in a call on it.
        if self._writer.close(timeout_s=CLOSE_TIMEOUT_S) and self._descriptor is not None:
            os.close(self._descriptor)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the real standard error."""
        return self._encoding

    @property
    def idle(self) -> bool:
        """Whether all text has been written."""
        return self._writer.idle

    @property
    def lost(self) -> int:
        """Number of texts that were lost."""
        return self._writer.lost

    def write(self, text: str) -> int:
        """Queue text; returns at once."""
        if text:
            self._writer.put(text)
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the real standard error is a terminal."""
        return self._is_terminal

    def fileno(self) -> int:
        """Return the descriptor of the real standard error."""
        if self._descriptor is None:
            raise io.UnsupportedOperation("standard error has no file descriptor")
        return self._descriptor

    def _forward(self, reading: int) -> None:
        """Queue what libraries write, until the pipe is closed."""
        with open(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(_PIPE_BYTES):
                self.write(data.decode(self._encoding, "backslashreplace"))

    def _write_text(self, text: str) -> None:
        lost = self._writer.lost - self._reported_lost
        if lost:
            text = f"unmask: {lost} earlier messages are lost, as standard error was not read\n{text}"
        if self._descriptor is not None:
            write_all(self._descriptor, text.encode(self._encoding, "backslashreplace"))
        elif self._target is not None:
            self._target.write(text)
            self._target.flush()
        self._reported_lost += lost


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes to a file descriptor in blocking or non-blocking mode; wait for the reader of a pipe.

    Raises:
        OSError: The bytes cannot be written, or only a part of them.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Some parent processes set their pipes to non-blocking mode.
            select.select([], [descriptor], [])


def goes_to_journal() -> bool:
    """Return whether the system's journal reads standard error, in a unit of systemd.

    Source: https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html
    """
    if not os.environ.get("JOURNAL_STREAM") or sys.stderr is None:
        return False
    # Also the pipe to a filter such as `tee`, whose output goes to the journal.
    with contextlib.suppress(OSError, ValueError):
        mode = os.fstat(sys.stderr.fileno()).st_mode
        return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)
    return False


def with_priority(text: str, level: int) -> str:
    """Return a text with the priority of a log level before each line, as the journal reads it.

    Args:
        text: One line or more.
        level: Level of the `logging` module.
    """
    priority = next((number for lowest, number in _PRIORITIES if level >= lowest), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def write_line(text: str) -> None:
    """Write a line to standard error; it is lost if it cannot be written within a second."""
    if sys.stderr is None:
        return
    if isinstance(sys.stderr, StandardError):
        sys.stderr.write(f"{text}\n")  # after the messages that wait
        return
    with contextlib.suppress(OSError):
        try:
            descriptor = sys.stderr.fileno()
        except OSError:  # replaced by an object without one
            print(text, file=sys.stderr)  # noqa: T201
            return
        if _is_writable(descriptor):
            # Without a buffer that Python would flush into a closed pipe at exit.
            write_all(descriptor, f"{text}\n".encode(sys.stderr.encoding or "utf-8", "backslashreplace"))


def open_standard_streams() -> None:
    """Open the null device in place of standard input, output or error if the parent process closed them.

    Otherwise the next file or socket would get the same number, and printed text would be written to it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # Gets this number: it is the lowest free one, since the lower ones are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", errors="replace"))


def _is_writable(descriptor: int) -> bool:
    try:
        return bool(select.select([], [descriptor], [], LINE_TIMEOUT_S)[1])
    except (OSError, ValueError):  # not supported for this kind of file
        return True


def _duplicate(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else os.dup(stream.fileno())
    except OSError:
        return None
