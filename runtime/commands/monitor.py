"""The program behind `unmask monitor`: everything put together, from the first check to the last line.

The engine, the batcher, the screen, the recording, the server and the monitor's threads live in nested
contexts. A signal, the end of all sources, the end of the time or a failure leaves them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from runtime.commands.console import ChangeLog, LiveConsole
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import JsonlFailed, UnmaskError
from runtime.messages import HelloMessage, Thresholds
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_state import stall_timeout_s
from runtime.serving.broadcaster import Broadcaster, Sink, new_session
from runtime.serving.jsonl import STDOUT, JsonlWriter
from runtime.serving.metrics import Metrics
from runtime.serving.server import DEFAULT_HOST, DEFAULT_PORT, Urls, serve
from runtime.version import version
from streams.faces.detector import Detector
from streams.faces.finder import FaceFinder
from streams.input.source import Source

logger = logging.getLogger(__name__)

# Whose news a person gets; everyone else is heard from a warning on.
SPEAKING = ("runtime.commands.monitor", "runtime.pipeline.stream_thread", "runtime.commands.console")

# How long the first lines wait for a source to be opened: that none can be read should be the only news.
SETTLE_S = 1.0
# How long the end waits for whoever reads the recording: after Ctrl-C, and at any other end.
INTERRUPTED_S = 0.3
FINISHED_S = 10.0
TABLE_HZ = 5


class RateTooHigh(UnmaskError, ValueError):
    """Says that more verdicts a second were asked for than the model takes samples.

    Args:
        rate_hz: What was asked for.
        sample_hz: The model's rate.
    """

    def __init__(self, rate_hz: float, sample_hz: float) -> None:
        super().__init__(rate_hz, sample_hz)
        self.rate_hz = rate_hz
        self.sample_hz = sample_hz

    def __str__(self) -> str:
        return (
            f"--rate {self.rate_hz:g}: the model takes {self.sample_hz:g} samples a second; "
            f"give a rate from above 0 to {self.sample_hz:g}"
        )


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Holds what `unmask monitor` was asked for.

    Args:
        sources: What to watch, at least one.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: `auto`, `onnxruntime` or `tensorrt`.
        rate_hz: Verdicts a second and face; None for one per sample.
        host: The address to listen on.
        port: The port to listen on; 0 for any free one.
        allow_origin: Origins whose pages may connect, besides the server's own.
        jsonl: Where every message goes as a line: a path, `-` for standard output, None for nowhere.
        duration_s: When to end; None for when the sources do.
    """

    sources: Sequence[Source]
    model: Path | None = None
    engine: str = "auto"
    rate_hz: float | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    allow_origin: Collection[str] = ()
    jsonl: str | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("there must be at least one source")
        if self.duration_s is not None and self.duration_s <= 0:
            raise ValueError(f"duration_s must be above 0, not {self.duration_s}")


def run_monitor(options: MonitorOptions) -> int:
    """Watch sources and serve the verdicts until something ends it.

    Args:
        options: What was asked for.

    Returns:
        The exit code: 2 if every source was given up, else 0.

    Raises:
        UnmaskError: The model, the engine, the address or the recording cannot be used.
        ValueError: An allowed origin is malformed.
    """
    bundle = load_bundle(options.model)
    if options.rate_hz is not None and not 0 < options.rate_hz <= bundle.sample_hz:
        raise RateTooHigh(options.rate_hz, bundle.sample_hz)
    infer = detector_infer(options.engine)
    with open_engine(bundle, options.engine) as engine, Batcher(engine.features) as batcher:

        def analysis_of() -> StreamAnalysis:
            return StreamAnalysis(
                bundle,
                head=engine,
                features=batcher,
                finder=FaceFinder(Detector(infer)),
                verdict_hz=options.rate_hz,
                expiry_s=stall_timeout_s(bundle.sample_hz),
            )

        return asyncio.run(_Run(options, bundle, engine).serve(analysis_of))


class _Run:
    """One run of the program, on the event loop of the main thread."""

    def __init__(self, options: MonitorOptions, bundle: Bundle, engine: Engine) -> None:
        self._options = options
        self._bundle = bundle
        self._engine = engine
        self._changed = asyncio.Event()
        self._interrupted = False
        self._unrecorded: JsonlFailed | None = None

    async def serve(self, analysis_of: Callable[[], StreamAnalysis]) -> int:
        options = self._options
        loop = asyncio.get_running_loop()
        hello = HelloMessage(
            version=version(),
            session=new_session(),
            model=self._bundle.name,
            engine=self._engine.describe(),
            thresholds=Thresholds(real=self._bundle.threshold_real, fake=self._bundle.threshold_fake),
        )
        metrics = Metrics()
        with self._signals(loop), ExitStack() as stack:
            screen = stack.enter_context(_Screen(table=self._has_screen()))
            sinks: list[Sink] = [metrics, screen.sink]
            if options.jsonl is not None:
                recording = JsonlWriter(options.jsonl, on_failure=lambda error: self._lose(error, loop))
                sinks.append(recording)
                stack.callback(
                    lambda: recording.close(timeout_s=INTERRUPTED_S if self._interrupted else FINISHED_S)
                )
            broadcaster = Broadcaster(hello, sinks=sinks)
            async with serve(
                broadcaster,
                host=options.host,
                port=options.port,
                allow_origin=options.allow_origin,
                metrics=metrics,
            ) as server:
                with Monitor(
                    options.sources,
                    sample_hz=self._bundle.sample_hz,
                    analysis_of=analysis_of,
                    publish=broadcaster.publish,
                    on_change=lambda: self._wake(loop),
                ) as monitor:
                    await self._watch(monitor, lambda: screen.begin(server.urls, self._engine.describe()))
        if monitor.failure is not None:
            raise monitor.failure
        if self._unrecorded is not None and not self._unrecorded.closed:
            raise self._unrecorded
        return 2 if monitor.finished and monitor.all_failed else 0

    async def _watch(self, monitor: Monitor, begin: Callable[[], None]) -> None:
        """Wait for what ends the program, and begin to show things once there is something to show."""
        loop = asyncio.get_running_loop()
        started, duration_s = loop.time(), self._options.duration_s

        def over() -> bool:
            return self._interrupted or self._unrecorded is not None or monitor.finished

        await self._until(lambda: over() or monitor.settled, started + SETTLE_S)
        if not (monitor.finished and monitor.all_failed):
            begin()
        await self._until(over, None if duration_s is None else started + duration_s)

    async def _until(self, condition: Callable[[], bool], deadline: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    @contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        def interrupt() -> None:
            self._interrupted = True
            self._changed.set()

        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            # Not on Windows, where Ctrl-C raises KeyboardInterrupt instead.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in signals:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    def _lose(self, error: JsonlFailed, loop: asyncio.AbstractEventLoop) -> None:
        self._unrecorded = error
        self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop look at what has changed; called on any thread."""
        # A thread that was too slow to stop may speak after the loop is gone.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._changed.set)

    def _has_screen(self) -> bool:
        # Where standard output is the same terminal, a table and the JSON lines would overwrite each other.
        return sys.stderr.isatty() and not (self._options.jsonl == STDOUT and sys.stdout.isatty())


class _Screen:
    """What a person sees, on standard error: warnings at once, everything else from `begin` on."""

    def __init__(self, *, table: bool) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._table = LiveConsole() if table else None
        self.sink: Sink = self._table or ChangeLog()
        self._handler: logging.Handler
        if table:
            self._handler = RichHandler(
                console=self._console, show_path=False, show_level=False, omit_repeated_times=False
            )
        else:
            self._handler = logging.StreamHandler()
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._handler.setLevel(logging.WARNING)
        # If nothing ever begins, what led to that is not worth a line.
        self._early = MemoryHandler(
            1000, flushLevel=logging.CRITICAL + 1, target=self._handler, flushOnClose=False
        )
        self._early.addFilter(lambda record: record.levelno < logging.WARNING)

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.addHandler(self._early)
        for name in SPEAKING:
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
        for name in SPEAKING:
            logging.getLogger(name).setLevel(logging.NOTSET)

    def begin(self, urls: Urls, engine: str) -> None:
        """Show the links, what has happened so far, and from now on everything.

        Args:
            urls: Where the server is to be found.
            engine: What runs the model.
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
                refresh_per_second=TABLE_HZ,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
