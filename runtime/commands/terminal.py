"""Output of `unmask monitor` on standard error: warnings at once, the rest after the first source."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from runtime.commands.console import EventLog, LiveConsole
from runtime.serving.broadcaster import Sink
from runtime.serving.server import Urls

logger = logging.getLogger(__name__)

# Loggers whose messages are shown from INFO on; all others are shown from WARNING on.
INFO_LOGGERS = ("runtime.commands.terminal", "runtime.commands.console", "runtime.pipeline.stream_thread")
REFRESH_HZ = 5


class Terminal:
    """Context that shows log messages and, if asked for, a live table.

    Args:
        table: Whether to show a live table; otherwise each change is logged.
    """

    def __init__(self, *, table: bool) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._table = LiveConsole() if table else None
        self.sink: Sink = self._table or EventLog()
        """Consumer of the broadcast messages."""
        self._handler: logging.Handler
        if table:
            self._handler = RichHandler(
                console=self._console, show_path=False, show_level=False, omit_repeated_times=False
            )
        else:
            self._handler = logging.StreamHandler()
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._handler.setLevel(logging.WARNING)
        # Messages below WARNING are kept back until `start`, and dropped if it is never called.
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
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.removeHandler(self._early)
        self._early.close()
        for name in INFO_LOGGERS:
            logging.getLogger(name).setLevel(logging.NOTSET)

    def start(self, urls: Urls, engine: str) -> None:
        """Show the URLs and the messages so far, and from now on all messages and the table.

        Args:
            urls: URLs of the server.
            engine: Description of the engine.
        """
        logger.info("engine: %s", engine)
        links = (
            ("dashboard", urls.dashboard),
            ("overlay for OBS", urls.overlay),
            ("WebSocket", urls.websocket),
        )
        for name, url in links:
            logger.info("%s: %s", name, url)
        self._early.flush()
        logging.getLogger().removeHandler(self._early)
        self._handler.setLevel(logging.INFO)
        if self._table is not None:
            self._live = Live(
                self._table,
                console=self._console,
                refresh_per_second=REFRESH_HZ,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
