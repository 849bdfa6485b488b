"""Standard input as a file for FFmpeg, which can be stopped while nothing arrives."""

from __future__ import annotations

import os
import select
import sys
import threading

from streams.errors import SourceInvalid

__all__ = ["StandardInput"]

_POLL_S = 0.2


class StandardInput:
    """Reader of standard input.

    Args:
        stop: Ends a read as the end of the input does.
        shown: Text for the error.
        descriptor: File descriptor to read.

    Raises:
        SourceInvalid: It is a terminal.
    """

    def __init__(self, stop: threading.Event, shown: str, descriptor: int = 0) -> None:
        if os.isatty(descriptor):
            reason, advice = "is a terminal", "pipe a video into it: ffmpeg … -f mpegts - | unmask monitor -"
            raise SourceInvalid(shown, reason, advice)
        self._stop = stop
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; empty at the end."""
        while not self._stop.is_set():
            # Windows can select sockets only; a read there waits for the writer.
            if sys.platform == "win32" or select.select([self._descriptor], [], [], _POLL_S)[0]:
                return os.read(self._descriptor, size)
        return b""
