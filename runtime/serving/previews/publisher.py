"""Frames for the clients that request them: encoded here or by another process, and distributed.

    with PreviewPublisher() as previews:
        previews.offer("cam", frame)  # on the stream's thread
        with previews.connect(subscription.put_preview) as requests:  # on the event loop
            requests.request(PreviewRequest(stream="cam", width=640, rate_hz=8))

A frame is encoded once for each width that clients request, and not at all while there is no request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from runtime.client_messages import PreviewRequest
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.demand import Formats, PreviewDemand, formats_of
from runtime.serving.previews.encoder import CPU_SHARE, PreviewEncoder
from streams.input.frame import Frame

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


class PreviewPublisher:
    """Frames as JPEG for the clients that request them; a context manager that runs the encoding thread.

    Frames that another process has encoded are sent like those of this one: `wanted` says which, and
    `receive` takes them.

    Args:
        cpu_share: Largest share of one core that the encoding uses, above 0 and up to 1.
    """

    def __init__(self, *, cpu_share: float = CPU_SHARE) -> None:
        self.changes = 0
        """Number of changes of clients or their requests so far."""
        self.received = 0
        """Number of JPEG images of other processes so far."""
        self._encoder = PreviewEncoder(self._distribute, cpu_share=cpu_share)
        # Guards everything below.
        self._lock = threading.Lock()
        self._clients: set[PreviewRequests] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Changes are not handled at once: many clients may send many requests between two frames.
        self._handled = 0

    def __enter__(self) -> Self:
        self._encoder.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoder.__exit__(kind, error, trace)

    @property
    def encoded(self) -> int:
        """Number of JPEG images so far."""
        return self._encoder.encoded + self.received

    @property
    def spent_s(self) -> float:
        """CPU time spent on those of this process, in seconds."""
        return self._encoder.spent_s

    def offer(self, stream: str, frame: Frame) -> None:
        """Take a scored frame, from any thread; returns at once.

        Args:
            stream: Name of the stream.
            frame: The frame; it must not be changed afterwards.
        """
        with self._lock:
            if self._handled != self.changes:
                self._handled = self.changes
                self._encoder.want(partial(formats_of, self._demands()))
        self._encoder.offer(stream, frame)

    def wanted(self, streams: Iterable[str]) -> dict[str, Formats]:
        """Return what the clients want of streams, without those of which they want nothing.

        Args:
            streams: Names of the streams.
        """
        with self._lock:
            demands = self._demands()
            formats = {stream: formats_of(demands, stream) for stream in streams} if demands else {}
        return {stream: wanted for stream, wanted in formats.items() if wanted}

    def receive(self, preview: EncodedPreview) -> None:
        """Send a frame that another process has encoded, from any thread."""
        self.received += 1
        self._distribute(preview)

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
        """Change clients or their requests; the next frame takes them over."""
        with self._lock:
            change()
            self.changes += 1

    def _demands(self) -> list[PreviewDemand]:
        return [client.demand for client in self._clients if client.demand]

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
