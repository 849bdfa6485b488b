"""The command `unmask monitor`: engine, batcher, terminal, recording, server and monitor in nested contexts.

A signal, the end of all sources, the end of `--duration` or an error ends the run; the contexts are then left
in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.commands.terminal import Terminal
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import RateTooHigh, VideoNotWritten
from runtime.messages import HelloMessage, Thresholds
from runtime.model.bundle import Bundle, load_bundle
from runtime.outputs.group import OutputGroup
from runtime.outputs.jsonl import STDOUT
from runtime.outputs.options import OutputOptions
from runtime.outputs.standard_error import StandardError
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.pipeline.stream_state import stall_timeout_s
from runtime.pipeline.stream_thread import ScoredFrame
from runtime.serving.broadcaster import Broadcaster, Sink, new_session
from runtime.serving.http.exchange import Route
from runtime.serving.metrics import Metrics
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.serving.server import DEFAULT_HOST, DEFAULT_PORT, serve
from runtime.serving.whip.endpoint import WhipEndpoint, require_webrtc
from runtime.uploads.routes import upload_routes
from runtime.uploads.service import UploadService
from runtime.version import version
from streams.faces.detector import Detector
from streams.faces.finder import FaceFinder
from streams.input.source import Source

# Longest wait for the first source before the URLs are printed. They are not printed if no source can be
# read.
SETTLE_TIMEOUT_S = 1.0
# Longest wait at the end until everything is written: after Ctrl-C, and otherwise.
INTERRUPTED_TIMEOUT_S = 0.3
FINISHED_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Options of `unmask monitor`.

    Args:
        sources: Sources to watch, at least one unless uploads are scanned.
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime` or `tensorrt`.
        rate_hz: Verdicts per second and face; None for one per sample.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        allow_origin: Origins besides the server's own whose pages may connect.
        max_clients: Maximum number of WebSocket clients; None for the default.
        outputs: Outputs beside the WebSocket.
        duration_s: Time in seconds after which to stop; None to run until the sources end.
        stun: Addresses of STUN servers for senders by WebRTC, `stun:HOST:PORT`; none is asked without.
        scan_uploads: Whether the server scans videos that are uploaded to it; then it does not stop when the
            sources end.

    Raises:
        ValueError: There is nothing to do, or the duration is not positive.
    """

    sources: Sequence[Source]
    model: Path | None = None
    engine: str = "auto"
    rate_hz: float | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    allow_origin: Collection[str] = ()
    max_clients: int | None = None
    outputs: OutputOptions = OutputOptions()  # noqa: RUF009  frozen
    duration_s: float | None = None
    stun: Sequence[str] = ()
    scan_uploads: bool = False

    def __post_init__(self) -> None:
        if not self.sources and not self.scan_uploads:
            raise ValueError("there must be at least one source")
        if self.duration_s is not None and self.duration_s <= 0:
            raise ValueError(f"duration_s must be above 0, not {self.duration_s}")
        if self.outputs.annotate is not None and len(self.sources) != 1:
            raise VideoNotWritten(self.outputs.annotate, "there are several sources; watch one of them")


def run_monitor(options: MonitorOptions) -> int:
    """Watch sources and serve the verdicts until a signal, the end of all sources or of the duration.

    Args:
        options: Options of the command.

    Returns:
        Exit code: 2 if no source can be read, else 0.

    Raises:
        UnmaskError: The model, the engine, the address or an output cannot be used.
        ValueError: An allowed origin is malformed.
    """
    require_webrtc(options.sources)
    bundle = load_bundle(options.model)
    if options.rate_hz is not None and not 0 < options.rate_hz <= bundle.sample_hz:
        raise RateTooHigh(options.rate_hz, bundle.sample_hz)
    infer = detector_infer(options.engine)
    with (
        StandardError() as output,
        open_engine(bundle, options.engine) as engine,
        Batcher(engine.features) as batcher,
    ):

        def new_analysis() -> StreamAnalysis:
            return StreamAnalysis(
                bundle,
                head=engine,
                features=batcher,
                finder=FaceFinder(Detector(infer)),
                verdict_hz=options.rate_hz,
                expiry_s=stall_timeout_s(bundle.sample_hz),
            )

        return asyncio.run(_MonitorRun(options, bundle, engine, output).serve(new_analysis))


class _MonitorRun:
    """One run of the command on the event loop of the main thread."""

    def __init__(
        self, options: MonitorOptions, bundle: Bundle, engine: Engine, output: StandardError
    ) -> None:
        self._options = options
        self._bundle = bundle
        self._engine = engine
        self._output = output
        self._changed = asyncio.Event()
        self._interrupted = False
        self._outputs: OutputGroup | None = None

    async def serve(self, new_analysis: Callable[[], StreamAnalysis]) -> int:
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
                options.outputs, hello=hello, bundle=self._bundle, on_closed=lambda: self._wake(loop)
            )
            stack.push_async_callback(self._close_outputs, outputs)
            for output in outputs.outputs:
                sinks.append(output)
                metrics.watch_output(output.name, partial(getattr, output, "lost"))
            broadcaster = Broadcaster(hello, sinks=sinks)
            previews = stack.enter_context(PreviewPublisher())
            whip = WhipEndpoint(lambda: options.sources, stun=options.stun)
            stack.push_async_callback(whip.close)
            metrics.watch_previews(previews)

            def on_frame(scored: ScoredFrame) -> None:
                previews.offer(scored.stream, scored.frame)
                outputs.on_frame(scored)

            routes = [*outputs.routes, *whip.routes, *await self._upload_routes(stack)]
            async with (
                serve(
                    broadcaster,
                    host=options.host,
                    port=options.port,
                    allow_origin=options.allow_origin,
                    metrics=metrics,
                    max_clients=options.max_clients,
                    previews=previews,
                    routes=routes,
                ) as server,
                Monitor(
                    options.sources,
                    sample_hz=self._bundle.sample_hz,
                    new_analysis=new_analysis,
                    publish=broadcaster.publish,
                    on_change=lambda: self._wake(loop),
                    on_frame=on_frame,
                    keep=outputs.ring_limits,
                ) as monitor,
            ):
                await self._wait_for_end(
                    monitor,
                    lambda: terminal.start(
                        server.urls, self._engine.describe(), scan_page=options.scan_uploads
                    ),
                )
        if monitor.failure is not None:
            raise monitor.failure
        recording = outputs.recording
        if recording is not None and recording.failure is not None and not self._interrupted:
            raise recording.failure
        return 2 if monitor.finished and monitor.all_failed else 0

    async def _upload_routes(self, stack: AsyncExitStack) -> list[Route]:
        """Start to receive uploads, if the options say so, and return their routes."""
        if not self._options.scan_uploads:
            return []
        uploads = UploadService(model=self._options.model, engine=self._options.engine)
        return upload_routes(await stack.enter_async_context(uploads))

    def _hello(self) -> HelloMessage:
        return HelloMessage(
            version=version(),
            session=new_session(),
            model=self._bundle.name,
            engine=self._engine.describe(),
            thresholds=Thresholds(
                real=self._bundle.calibration.threshold_real, fake=self._bundle.calibration.threshold_fake
            ),
        )

    async def _close_outputs(self, outputs: OutputGroup) -> None:
        """Wait until everything is written; a signal, or an output that never continues, ends the wait."""
        await outputs.close(
            patience_s=FINISHED_TIMEOUT_S, hurry_s=INTERRUPTED_TIMEOUT_S, hurry=lambda: self._interrupted
        )

    async def _wait_for_end(self, monitor: Monitor, start_output: Callable[[], None]) -> None:
        """Wait until the run is over; call `start_output` once the first source has been tried."""
        loop = asyncio.get_running_loop()
        started, duration_s = loop.time(), self._options.duration_s

        def over() -> bool:
            closed = self._outputs is not None and self._outputs.closed
            ended = monitor.finished and not self._options.scan_uploads
            return self._interrupted or closed or ended or monitor.failure is not None

        await self._wait_until(lambda: over() or monitor.settled, started + SETTLE_TIMEOUT_S)
        if self._options.scan_uploads or not (monitor.finished and monitor.all_failed):
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
            elif self._outputs is not None and self._outputs.recording is not None:
                self._outputs.recording.reopen()

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
