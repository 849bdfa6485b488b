"""Encoding of frames on a thread of its own, and their distribution to the clients that requested them.

    with PreviewPublisher() as previews:
        previews.offer("cam", frame)  # on the stream's thread
        with previews.connect(subscription.put_preview) as requests:  # on the event loop
            requests.request(PreviewRequest(stream="cam", width=640, rate_hz=8))

A frame is encoded once for each width that clients request, and not at all while there is no request. One
frame per stream waits; a newer one takes its place. The encoding uses at most `CPU_SHARE` of one core:
beyond it there are fewer frames per second.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from runtime.client_messages import PreviewRequest
from runtime.messages import PreviewHeader, encode_preview
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.demand import EncodingSchedule, PreviewDemand
from runtime.serving.previews.jpeg import JpegEncoder
from streams.input.frame import Frame

CPU_SHARE = 0.25

logger = logging.getLogger(__name__)


class PreviewRequests:
    """Requests of one connected client.

    Args:
        publisher: Publisher that it belongs to.
        put: Function that queues a frame for the client; called on the event loop.
    """

    def __init__(self, publisher: PreviewPublisher, put: Callable[[EncodedPreview], None]) -> None:
        self.demand = PreviewDemand()
        self._publisher = publisher
        self._put = put

    def request(self, request: PreviewRequest) -> None:
        """Handle a request of the client; called on the event loop."""
        self._publisher.change(lambda: self.demand.request(request))

    def deliver(self, preview: EncodedPreview) -> None:
        """Queue a frame if the client wants it; called on the event loop."""
        if self.demand.due(preview.stream, preview.width, preview.pts_s):
            self._put(preview)


@dataclass(frozen=True, slots=True)
class _Job:
    frame: Frame
    widths: frozenset[int]


class PreviewPublisher:
    """Frames as JPEG for the clients that request them; a context manager that runs the encoding thread.

    Args:
        cpu_share: Largest share of one core that the encoding uses, above 0 and up to 1.
    """

    def __init__(self, *, cpu_share: float = CPU_SHARE) -> None:
        if not 0 < cpu_share <= 1:
            raise ValueError(f"cpu_share must be above 0 and at most 1, not {cpu_share}")
        self.encoded = 0
        """Number of JPEG images made so far."""
        self.spent_s = 0.0
        """CPU time spent on them, in seconds."""
        self._rest_per_s = 1 / cpu_share - 1
        # Guards everything below.
        self._lock = threading.Lock()
        self._clients: set[PreviewRequests] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule = EncodingSchedule()
        # Not updated at once: many clients may send many requests between two frames.
        self._outdated = False
        self._jobs: dict[str, _Job] = {}
        self._failed: set[str] = set()
        self._waiting = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._waiting.set()
        self._thread.join()

    def offer(self, stream: str, frame: Frame) -> None:
        """Take a scored frame, from any thread; returns at once.

        Args:
            stream: Name of the stream.
            frame: The frame; it must not be changed afterwards.
        """
        with self._lock:
            if self._outdated:
                self._outdated = False
                self._schedule.update([client.demand for client in self._clients if client.demand])
            widths = self._schedule.due(stream, frame.pts_s)
            if not widths:
                return
            waiting = self._jobs.get(stream)
            # The stream keeps its turn, and the widths that the replaced frame was to be encoded for.
            self._jobs[stream] = _Job(frame, widths if waiting is None else widths | waiting.widths)
        self._waiting.set()

    @contextmanager
    def connect(self, put: Callable[[EncodedPreview], None]) -> Iterator[PreviewRequests]:
        """Return the requests of a new client, valid inside a `with` block on the event loop.

        Args:
            put: Function that queues a frame for the client; called on the event loop.
        """
        client = PreviewRequests(self, put)
        with self._lock:
            self._clients.add(client)
            self._loop = asyncio.get_running_loop()
        try:
            yield client
        finally:
            self.change(lambda: self._clients.remove(client))

    def change(self, change: Callable[[], None]) -> None:
        """Change clients or their requests while no stream reads them; the next frame takes them over."""
        with self._lock:
            change()
            self._outdated = True

    def _run(self) -> None:
        encoder = JpegEncoder()
        while not self._stopping.is_set():
            self._waiting.wait()
            self._waiting.clear()
            while (job := self._next_job()) is not None and not self._stopping.is_set():
                started = time.thread_time()
                self._encode(encoder, *job)
                spent_s = time.thread_time() - started
                self.spent_s += spent_s
                self._stopping.wait(self._rest_per_s * spent_s)

    def _next_job(self) -> tuple[str, _Job] | None:
        with self._lock:
            stream = next(iter(self._jobs), None)
            return None if stream is None else (stream, self._jobs.pop(stream))

    def _encode(self, encoder: JpegEncoder, stream: str, job: _Job) -> None:
        frame = job.frame
        try:
            for width in sorted(job.widths):
                jpeg, actual_width, height = encoder.encode(frame.image, width)
                header = PreviewHeader(
                    stream=stream,
                    pts_s=frame.pts_s,
                    captured=frame.captured,
                    width=actual_width,
                    height=height,
                )
                data = encode_preview(header, jpeg)
                self.encoded += 1
                self._distribute(EncodedPreview(stream, width, frame.pts_s, data))
        except Exception:
            # Verdicts do not depend on it. Once per stream, because every frame would fail alike.
            if stream not in self._failed:
                self._failed.add(stream)
                logger.exception("%s: no frames can be shown", stream)

    def _distribute(self, preview: EncodedPreview) -> None:
        with self._lock:
            clients, loop = tuple(self._clients), self._loop
        if loop is None or loop.is_closed():
            return

        def deliver() -> None:
            for client in clients:
                client.deliver(preview)

        try:
            loop.call_soon_threadsafe(deliver)
        except RuntimeError:
            logger.debug("the event loop was closed while a frame was encoded")
