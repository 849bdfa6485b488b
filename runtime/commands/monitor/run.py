"""One run of `unmask monitor` or `unmask fleet`: terminal, outputs, server and watching in nested contexts.

A signal, the end of all sources, the end of `--duration` or an error ends the run; the contexts are then left
in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Protocol

# Before any module that loads OpenCV: FFmpeg would use the X11 libraries that OpenCV brings along, and crash
# when it opens a screen.
import av  # noqa: F401

from runtime.commands.monitor.terminal import Terminal
from runtime.commands.options import UserError, complain
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.security import create_tokens
from runtime.config.model import ThresholdsConfig
from runtime.errors import ConfigInvalid
from runtime.messages import BroadcastMessage, HelloMessage, Thresholds
from runtime.model.bundle import Bundle
from runtime.outputs.group import OutputGroup
from runtime.outputs.jsonl import STDOUT
from runtime.outputs.standard_error import StandardError
from runtime.pipeline.stream_thread import FrameSink, ScoredFrame
from runtime.serving.broadcaster import Broadcaster, Sink, new_session
from runtime.serving.http.exchange import Route
from runtime.serving.metrics import Metrics
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.serving.server import Server, serve
from runtime.serving.session import Commands
from runtime.serving.whip.endpoint import WhipEndpoint
from runtime.uploads.routes import upload_routes
from runtime.uploads.service import UploadService
from runtime.version import version
from streams.input.clips.packet_ring import RingLimits
from streams.input.source import Source

# Longest wait for the first source before the URLs are printed. They are not printed if no source can be
# read.
SETTLE_TIMEOUT_S = 1.0
# Longest wait at the end until everything is written: after Ctrl-C, and otherwise.
INTERRUPTED_TIMEOUT_S = 0.3
FINISHED_TIMEOUT_S = 10.0


class Watching(Protocol):
    """Watcher of the sources: a monitor of this process, or the head of a fleet."""

    @property
    def settled(self) -> bool:
        """Whether at least one source was tried."""

    @property
    def finished(self) -> bool:
        """Whether all sources have ended or failed."""

    @property
    def failure(self) -> BaseException | None:
        """Error that ends the run."""

    @property
    def all_failed(self) -> bool:
        """Whether no source can be read."""

    @property
    def sources(self) -> list[Source]:
        """Sources on this machine."""

    async def __aenter__(self) -> object:
        """Begin to watch."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch."""


class Control(Protocol):
    """Changes of the sources while the program runs."""

    @property
    def commands(self) -> Commands:
        """Handlers of the messages of clients."""

    async def reload(self, setup: MonitorSetup, server: Server) -> None:
        """Read the configuration again."""


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """Receivers of the messages and frames of a run.

    Args:
        publish: Function that sends a message.
        on_change: Called when a state of `Watching` has changed, from any thread.
        on_frame: Receives each scored frame.
        keep: Limits of the packets that scored frames refer to; None to keep none.
        previews: Receives frames that other processes have encoded; `on_frame` offers it those of this one.
    """

    publish: Callable[[BroadcastMessage], object]
    on_change: Callable[[], None]
    on_frame: FrameSink
    keep: RingLimits | None
    previews: PreviewPublisher


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """Settings of a run.

    Args:
        setup: Where the options come from.
        options: The options.
        bundle: The model.
        thresholds: Thresholds in `hello`.
        engine: Returns the description of the engine.
        watch: Returns what watches the sources, and their changes.
    """

    setup: MonitorSetup
    options: MonitorOptions
    bundle: Bundle
    thresholds: Thresholds
    engine: Callable[[], str]
    watch: Callable[[Receivers], tuple[Watching, Control]]


def load_options(setup: MonitorSetup) -> MonitorOptions:
    """Return the options of a run, and print why some sources are left out.

    Raises:
        UnmaskError: The configuration cannot be used.
        UserError: A value cannot be used.
    """
    try:
        options = setup.load("skip")
    except ConfigInvalid as error:
        raise UserError(*error.problems) from None
    for reason in options.left_out:
        complain(reason)
    return options


def thresholds_of(options: MonitorOptions, bundle: Bundle) -> Thresholds:
    """Return the thresholds of all streams without their own."""
    own, model = options.config.thresholds or ThresholdsConfig(), bundle.calibration
    return Thresholds(
        real=model.threshold_real if own.real is None else own.real,
        fake=model.threshold_fake if own.fake is None else own.fake,
    )


class MonitorRun:
    """One run on the event loop of the main thread.

    Args:
        run: What it needs.
        output: Standard error.
    """

    def __init__(self, run: RunSetup, output: StandardError) -> None:
        self._run = run
        self._options = run.options
        self._output = output
        self._changed = asyncio.Event()
        self._interrupted = False
        self._outputs: OutputGroup | None = None
        self._reload: Callable[[], object] = lambda: None

    async def serve(self) -> int:
        """Watch and serve until the end, and return the exit code."""
        options = self._options
        loop = asyncio.get_running_loop()
        metrics = Metrics()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._signal_handlers(loop))
            terminal = stack.enter_context(Terminal(self._output, table=self._shows_table()))
            sinks: list[Sink] = [metrics, terminal.sink]
            metrics.watch_output("log", lambda: self._output.lost)
            hello = self._hello()
            outputs = self._outputs = OutputGroup(
                options.outputs, hello=hello, bundle=self._run.bundle, on_closed=lambda: self._wake(loop)
            )
            stack.push_async_callback(self._close_outputs, outputs)
            for output in outputs.outputs:
                metrics.watch_output(output.name, partial(getattr, output, "lost"))
            broadcaster = Broadcaster(hello, sinks=[*sinks, *outputs.outputs])
            previews = stack.enter_context(PreviewPublisher())
            metrics.watch_previews(previews)

            def on_frame(scored: ScoredFrame) -> None:
                previews.offer(scored.stream, scored.frame)
                outputs.on_frame(scored)

            monitor, control = self._run.watch(
                Receivers(
                    publish=broadcaster.publish,
                    on_change=lambda: self._wake(loop),
                    on_frame=on_frame,
                    keep=outputs.ring_limits,
                    previews=previews,
                )
            )
            server_config = options.config.server
            routes = [*outputs.routes, *await self._receiving_routes(stack, monitor)]
            async with (
                serve(
                    broadcaster,
                    host=server_config.host,
                    port=server_config.port,
                    allow_origin=server_config.allow_origin,
                    metrics=metrics,
                    max_clients=server_config.max_clients,
                    previews=previews,
                    # No token file is created for a run that cannot begin.
                    security=create_tokens(server_config, options.security),
                    routes=routes,
                    commands=control.commands,
                ) as server,
                monitor,
                asyncio.TaskGroup() as tasks,
            ):
                self._reload = lambda: tasks.create_task(control.reload(self._run.setup, server))
                await self._wait_for_end(
                    monitor,
                    lambda: terminal.start(
                        server.urls, self._run.engine(), scan_page=server_config.scan_uploads
                    ),
                )
                # The group of tasks accepts no more.
                self._reload = lambda: None
        return self._exit_code(monitor, outputs)

    def _exit_code(self, monitor: Watching, outputs: OutputGroup) -> int:
        if monitor.failure is not None:
            raise monitor.failure
        recording = outputs.recording
        if recording is not None and recording.failure is not None and not self._interrupted:
            return complain(str(recording.failure), 1)
        return 2 if monitor.finished and monitor.all_failed else 0

    async def _receiving_routes(self, stack: AsyncExitStack, monitor: Watching) -> list[Route]:
        """Prepare to receive WebRTC senders and, if the options say so, uploads; return the routes."""
        config = self._options.config
        whip = WhipEndpoint(lambda: monitor.sources, stun=config.server.stun)
        stack.push_async_callback(whip.close)
        if not config.server.scan_uploads:
            return whip.routes
        uploads = UploadService(model=config.model, engine=config.engine)
        return [*whip.routes, *upload_routes(await stack.enter_async_context(uploads))]

    def _hello(self) -> HelloMessage:
        return HelloMessage(
            version=version(),
            session=new_session(),
            model=self._run.bundle.name,
            engine=self._run.engine(),
            thresholds=self._run.thresholds,
            hysteresis=self._run.bundle.calibration.hysteresis,
        )

    async def _close_outputs(self, outputs: OutputGroup) -> None:
        """Wait until everything is written; a signal, or an output that never continues, ends the wait."""
        await outputs.close(
            patience_s=FINISHED_TIMEOUT_S, hurry_s=INTERRUPTED_TIMEOUT_S, hurry=lambda: self._interrupted
        )

    async def _wait_for_end(self, monitor: Watching, start_output: Callable[[], None]) -> None:
        """Wait until the run is over; call `start_output` once the first source has been tried."""
        loop = asyncio.get_running_loop()
        started, duration_s = loop.time(), self._options.config.duration

        def over() -> bool:
            closed = self._outputs is not None and self._outputs.closed
            ended = monitor.finished and not self._options.config.server.scan_uploads
            return self._interrupted or closed or ended or monitor.failure is not None

        await self._wait_until(lambda: over() or monitor.settled, started + SETTLE_TIMEOUT_S)
        if self._options.config.server.scan_uploads or not (monitor.finished and monitor.all_failed):
            start_output()
        await self._wait_until(over, None if duration_s is None else started + duration_s)

    async def _wait_until(self, condition: Callable[[], bool], deadline: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    @contextmanager
    def _signal_handlers(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        def interrupt() -> None:
            self._interrupted = True
            self._changed.set()

        def hang_up() -> None:
            if self._output.isatty() and not os.isatty(2):
                interrupt()  # the terminal is gone
                return
            if self._outputs is not None and self._outputs.recording is not None:
                self._outputs.recording.reopen()
            self._reload()

        handlers = {signal.SIGINT: interrupt, signal.SIGTERM: interrupt}
        if sys.platform != "win32":
            handlers[signal.SIGHUP] = hang_up
        for number, handler in handlers.items():
            # Not on Windows, where Ctrl-C raises KeyboardInterrupt instead.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the event loop check its conditions; called on any thread."""
        # The loop may be closed if a thread did not stop in time.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._changed.set)

    def _shows_table(self) -> bool:
        # If standard output is the same terminal, the table and the JSON lines would overwrite each other.
        return self._output.isatty() and not (self._options.outputs.jsonl == STDOUT and sys.stdout.isatty())
