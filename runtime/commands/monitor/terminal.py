"""Output of `unmask monitor` on standard error: warnings at once, the rest after the first source."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler
from types import TracebackType
from typing import IO, Any, Self, cast

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from runtime.commands.console import EventLog, LiveConsole
from runtime.outputs.background_writer import BackgroundWriter
from runtime.outputs.standard_error import StandardError, goes_to_journal, with_priority
from runtime.serving.broadcaster import Sink
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.server import Urls

logger = logging.getLogger(__name__)

# Loggers whose messages are shown from INFO on; all others are shown from WARNING on.
INFO_LOGGERS = (
    "runtime.commands.monitor.terminal",
    "runtime.commands.console",
    "runtime.commands.monitor.source_control",
    "runtime.serving.certificate",
    "runtime.pipeline.stream_thread",
    "runtime.fleet",
    "runtime.outputs",
)
REFRESH_HZ = 5
# Messages that may wait to be logged, and the longest wait for them at the end.
LOG_CAPACITY = 1000
LOG_TIMEOUT_S = 0.3


class Terminal:
    """Context that shows log messages and, if requested, a live table.

    Args:
        output: Where they are shown; writing to it never blocks.
        table: Whether to show a live table; otherwise each change is logged.
    """

    def __init__(self, output: StandardError, *, table: bool) -> None:
        self._output = output
        self._console = Console(file=cast("IO[str]", output))
        self._live: Live | None = None
        self._table = LiveConsole() if table else None
        # Changes are logged on a thread of their own, because logging handlers of other libraries may block.
        self._log: BackgroundWriter[EncodedMessage] | None = (
            None if table else BackgroundWriter("event log", EventLog(), capacity=LOG_CAPACITY)
        )
        self.sink: Sink = self._table or self._log_message
        """Consumer of the broadcast messages; returns at once."""
        self._handler: logging.Handler
        if table:
            self._handler = RichHandler(
                console=self._console, show_path=False, show_level=False, omit_repeated_times=False
            )
        else:
            self._handler = logging.StreamHandler(output)
            self._handler.setFormatter(
                _JournalFormatter("%(message)s")
                if goes_to_journal()
                else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
            )
        self._handler.setLevel(logging.WARNING)
        # Messages below WARNING are buffered until `start`, and dropped if it is never called.
        self._early = MemoryHandler(
            1000, flushLevel=logging.CRITICAL + 1, target=self._handler, flushOnClose=False
        )
        self._early.addFilter(lambda record: record.levelno < logging.WARNING)

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.addHandler(self._early)
        for name in INFO_LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            self._log.close(timeout_s=LOG_TIMEOUT_S)
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.removeHandler(self._early)
        self._early.close()
        for name in INFO_LOGGERS:
            logging.getLogger(name).setLevel(logging.NOTSET)

    def start(self, urls: Urls, engine: str, *, scan_page: bool = False) -> None:
        """Show the messages so far and the URLs, and from now on every message and the table.

        Args:
            urls: URLs of the server.
            engine: Description of the engine.
            scan_page: Whether the server scans uploaded videos.
        """
        logger.info("engine: %s", engine)
        links = [
            ("dashboard", urls.dashboard),
            ("overlay for OBS", urls.overlay),
            ("WebSocket", urls.websocket),
        ]
        if scan_page:
            links.append(("scan a video", f"{urls.dashboard}scan"))
        for name, url in links:
            logger.info("%s: %s", name, url)
        self._early.flush()
        logging.getLogger().removeHandler(self._early)
        self._handler.setLevel(logging.INFO)
        if self._table is not None:
            self._live = _LiveDisplay(
                self._output,
                self._table,
                console=self._console,
                refresh_per_second=REFRESH_HZ,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _log_message(self, encoded: EncodedMessage) -> None:
        assert self._log is not None
        self._log.put(encoded)


class _JournalFormatter(logging.Formatter):
    """Format of the system's journal, which adds the time by itself."""

    def format(self, record: logging.LogRecord) -> str:
        return with_priority(super().format(record), record.levelno)


class _LiveDisplay(Live):
    """Live table that skips a refresh while the terminal has not taken the output before it."""

    def __init__(self, output: StandardError, *arguments: Any, **options: Any) -> None:
        self._output = output
        super().__init__(*arguments, **options)

    def refresh(self) -> None:
        """Draw the table, unless the terminal is paused or slow."""
        if self._output.idle:
            super().refresh()
