"""The server: WebSocket clients and web pages on one port.

    async with serve(hub, port=8765) as server:
        print(server.urls.dashboard)

Only moves bytes: `pages.py` decides on requests, `queue.py` on what a slow client loses.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import AsyncIterator, Collection, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from runtime.errors import AddressUnusable, PortBusy
from runtime.serving.access import Access
from runtime.serving.broadcaster import Broadcaster, Subscription
from runtime.serving.metrics import Metrics
from runtime.serving.pages import HttpAnswer, HttpRoutes

logger = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765

# A client that takes nothing for this long is cut off; it will connect again if it is still there.
SEND_TIMEOUT_S = 20.0
# How long a client has to say goodbye when the server stops.
GOODBYE_S = 0.4
# What waits in the kernel cannot give way to something newer, so little may: a few seconds of messages.
SEND_BUFFER_BYTES = 32 * 1024
# Clients have nothing to say.
MAX_INCOMING_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Holds the links to open.

    Args:
        dashboard: For a person.
        overlay: For a browser source of OBS.
        websocket: For a program.
    """

    dashboard: str
    overlay: str
    websocket: str

    @classmethod
    def of(cls, host: str, port: int) -> Urls:
        """Make the links of a server; one that listens everywhere is linked by its loopback address."""
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        authority = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        return cls(
            dashboard=f"http://{authority}/",
            overlay=f"http://{authority}/overlay",
            websocket=f"ws://{authority}/ws",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Holds where a running server listens.

    Args:
        host: As it was given.
        port: The real one, where 0 was given.
    """

    host: str
    port: int

    @property
    def urls(self) -> Urls:
        """Give the links to open."""
        return Urls.of(self.host, self.port)


@asynccontextmanager
async def serve(
    broadcaster: Broadcaster,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    allow_origin: Collection[str] = (),
    metrics: Metrics | None = None,
    send_timeout_s: float = SEND_TIMEOUT_S,
) -> AsyncIterator[Server]:
    """Serve a hub's messages and the web pages while the context lasts; leaving takes less than a second.

    Args:
        hub: Whose messages go out.
        host: The address to listen on.
        port: The port to listen on; 0 for any free one.
        allow_origin: Origins whose pages may connect, besides the server's own; see `Access`.
        metrics: Exposed at `/metrics`; should be a sink of the hub.
        send_timeout_s: How long a client may take nothing before it is cut off.

    Yields:
        Where it listens.

    Raises:
        PortBusy: Another program listens there.
        AddressUnusable: This machine, or this user, cannot listen there.
        ValueError: An allowed origin is malformed.
    """
    machine = socket.gethostname()
    access = Access(allow_origin, names={host, machine, f"{machine}.local"})
    pages = HttpRoutes(broadcaster, access, metrics)
    if metrics is not None:
        metrics.watch(broadcaster)
    connections: set[ServerConnection] = set()

    class TrackedConnection(ServerConnection):
        """Is known from its first byte, as a browser's idle spare connection would hold up the end."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.discard(self)
            super().connection_lost(exc)

    async def talk(connection: ServerConnection) -> None:
        raw: socket.socket = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        with broadcaster.subscribe() as subscription:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send_all(connection, subscription, send_timeout_s))
                try:
                    # Reading is what notices that a client has left; what it says is of no interest.
                    async for _ in connection:
                        pass
                except ConnectionClosed as closed:
                    logger.debug("a client is gone: %s", closed)
                sending.cancel()

    def respond(_: ServerConnection, request: Request) -> Response | None:
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        answer = pages.answer(request.method, request.path, headers)
        return None if answer is None else _response(answer, with_body=request.method != "HEAD")

    if not 0 <= port <= 65535:
        raise AddressUnusable(host, port, "ports go from 0 to 65535")
    try:
        listener = await serve_websockets(
            talk,
            host,
            port,
            process_request=respond,
            # Short messages gain little from compression and would wait for it.
            compression=None,
            server_header="unmask",
            open_timeout=5,
            ping_interval=10,
            ping_timeout=20,
            close_timeout=GOODBYE_S,
            max_size=MAX_INCOMING_BYTES,
            write_limit=8 * 1024,
            logger=_library_logger(),
            create_connection=TrackedConnection,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(host, port) from error
        reason = (error.strerror or str(error)).lower()
        raise AddressUnusable(host, port, reason) from error
    server = Server(host=host, port=_port_of(listener))
    if not _is_loopback(host):
        logger.warning("anyone who reaches this machine on port %d can watch the verdicts", server.port)
    try:
        yield server
    finally:
        await _close(listener, connections)


@contextmanager
def serve_in_thread(broadcaster: Broadcaster, **options: Any) -> Iterator[Server]:
    """Serve on an event loop in a thread of its own while the context lasts.

    Args:
        hub: Whose messages go out.
        options: As for `serve`.

    Yields:
        Where it listens.

    Raises:
        PortBusy, AddressUnusable, ValueError: As `serve` does.
    """
    started: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with serve(broadcaster, **options) as server:
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=main, name="server")
    thread.start()
    try:
        server, loop, stop = started.result()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


async def _send_all(connection: ServerConnection, subscription: Subscription, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            for data in subscription.greeting:
                await connection.send(data, text=True)
            deadline.reschedule(None)
            async for encoded in subscription:
                deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
                await connection.send(encoded.data, text=True)
                deadline.reschedule(None)
    except TimeoutError:
        logger.info("a client has taken nothing for %g s and is cut off", timeout_s)
        # A closing handshake would have to wait behind what the client does not take.
        connection.transport.abort()
    except ConnectionClosed as closed:
        logger.debug("a client is gone: %s", closed)


async def _close(listener: WebSocketServer, connections: set[ServerConnection]) -> None:
    listener.close()
    try:
        async with asyncio.timeout(GOODBYE_S):
            await listener.wait_closed()
    except TimeoutError:
        for connection in tuple(connections):
            connection.transport.abort()
        await listener.wait_closed()


def _response(answer: HttpAnswer, *, with_body: bool) -> Response:
    headers = Headers(
        {
            "Date": email.utils.formatdate(usegmt=True),
            "Connection": "close",
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **answer.headers,
        }
    )
    body = answer.body if with_body else b""
    return Response(answer.status.value, answer.status.phrase, headers, body)


def _port_of(listener: WebSocketServer) -> int:
    port: int = next(iter(listener.sockets)).getsockname()[1]
    return port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _library_logger() -> logging.Logger:
    """Give the library a logger that leaves out each connection's coming and going."""
    library = logging.getLogger(f"{__name__}.websockets")
    library.setLevel(logging.WARNING)
    return library
