"""Server for WebSocket clients and web pages on one port.

    async with serve(broadcaster, port=8765) as server:
        print(server.urls.dashboard)

I/O only: `pages.py` decides on HTTP requests, `client_queue.py` on the messages to drop for a slow client.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from runtime.client_messages import PreviewRequest, parse_client_message
from runtime.errors import AddressUnusable, PortBusy
from runtime.serving.access.origins import Access
from runtime.serving.broadcaster import Broadcaster, Subscription
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.connection import CLOSE_TIMEOUT_S, ClientConnection
from runtime.serving.metrics import Metrics
from runtime.serving.pages import HttpResponse, Pages, too_many_clients
from runtime.serving.previews.publisher import PreviewPublisher, PreviewRequests
from runtime.serving.refusals import (
    BACKLOG,
    SPARE_CONNECTIONS,
    RefusalLog,
    client_limit,
    open_files_left,
)

logger = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765

# A client that accepts no data for this long is disconnected; if it is alive, it will reconnect.
SEND_TIMEOUT_S = 20.0
# Small, a few seconds of messages, because data in the kernel's buffer cannot be replaced by newer messages.
SEND_BUFFER_BYTES = 32 * 1024
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Connections that wait in the kernel until they are accepted.
LISTEN_BACKLOG = 128
# No valid message of a client is longer.
MAX_INCOMING_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Addresses of a running server.

    Args:
        dashboard: Dashboard, to be opened in a browser.
        overlay: Overlay, for a browser source of OBS.
        websocket: WebSocket, for programs.
    """

    dashboard: str
    overlay: str
    websocket: str

    @classmethod
    def of(cls, host: str, port: int) -> Urls:
        """Return the addresses of a server; the loopback address if it listens on all interfaces."""
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        authority = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        return cls(
            dashboard=f"http://{authority}/",
            overlay=f"http://{authority}/overlay",
            websocket=f"ws://{authority}/ws",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Host and port on which a running server listens.

    Args:
        host: Host as it was given.
        port: Actual port, never 0.
    """

    host: str
    port: int

    @property
    def urls(self) -> Urls:
        """Addresses to open."""
        return Urls.of(self.host, self.port)


@asynccontextmanager
async def serve(
    broadcaster: Broadcaster,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    allow_origin: Collection[str] = (),
    metrics: Metrics | None = None,
    max_clients: int | None = None,
    send_timeout_s: float = SEND_TIMEOUT_S,
    previews: PreviewPublisher | None = None,
) -> AsyncIterator[Server]:
    """Run the server inside an `async with` block; leaving it takes less than a second.

    Args:
        broadcaster: Source of the messages.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        allow_origin: Origins whose pages may connect, besides the server's own; see `Access`.
        metrics: Exposed at `/metrics`; should be a sink of the broadcaster.
        max_clients: Maximum number of WebSocket clients; None for `DEFAULT_MAX_CLIENTS`. Lowered to what the
            limit on open files leaves room for. Further clients get HTTP 503.
        send_timeout_s: Time in seconds after which a client that accepts no data is disconnected.
        previews: Source of the frames for clients that request them; None if there are none.

    Yields:
        The running server, with its host and port.

    Raises:
        PortBusy: Another program listens there.
        AddressUnusable: This machine, or this user, cannot listen there.
        ValueError: An allowed origin is malformed.
    """
    machine = socket.gethostname()
    access = Access(allow_origin, names={host, machine, f"{machine}.local"})
    limit = client_limit(max_clients, open_files_left())
    if max_clients is not None and limit < max_clients:
        logger.warning("--max-clients is %d, not %d: the limit on open files is too low", limit, max_clients)
    pages = Pages(broadcaster, access, metrics, limit)
    refusals = RefusalLog(asyncio.get_running_loop().call_later)
    if metrics is not None:
        metrics.watch(broadcaster)
        refusals = RefusalLog(asyncio.get_running_loop().call_later, metrics.count_refusal)
    connections = _Connections(limit, refusals)

    async def handle(connection: ServerConnection) -> None:
        await _serve_client(connection, broadcaster, previews, send_timeout_s)

    def respond(connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, ClientConnection)
        response = pages.respond(
            request.method, request.path, list(request.headers.raw_items()), has_body=connection.has_body
        )
        if response is None:
            return None
        if response.refusal is not None:
            refusals.note(response.refusal, response.body.decode(errors="replace").strip())
        return _encode_response(response, with_body=request.method != "HEAD")

    listener = await _listen(host, port, handle, respond, connections)
    server = Server(host=host, port=_port_of(listener))
    if not _is_loopback(host):
        logger.warning("anyone who reaches this machine on port %d can watch the verdicts", server.port)
    try:
        with _accept_errors(refusals):
            yield server
    finally:
        await _close(listener, connections)
        refusals.flush()


class _Connections(set[ServerConnection]):
    """Open connections; those beyond the limit are refused before anything is read from them."""

    def __init__(self, max_clients: int, refusals: RefusalLog) -> None:
        super().__init__()
        self.max_clients = max_clients
        self.refusals = refusals

    def accepts(self) -> bool:
        """Return whether one more connection is accepted; log it if not."""
        if len(self) < self.max_clients + SPARE_CONNECTIONS:
            return True
        self.refusals.note("clients", too_many_clients(self.max_clients))
        return False


def _tracked_connection(connections: _Connections) -> type[ClientConnection]:
    """Return a class whose open connections are in `connections`; refuses those beyond the limit."""

    class TrackedConnection(ClientConnection):
        accepted = False

        # Tracked before the handshake too, because an idle connection of a browser would delay the shutdown.
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.accepted = connections.accepts()
            if self.accepted:
                connections.add(self)
                super().connection_made(transport)
            else:
                assert isinstance(transport, asyncio.Transport)
                text = f"{too_many_clients(connections.max_clients)}\n".encode()
                response = HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", text)
                transport.write(_encode_response(response, with_body=True).serialize())
                transport.close()

        def data_received(self, data: bytes) -> None:
            if self.accepted:
                super().data_received(data)

        def eof_received(self) -> None:
            if self.accepted:
                super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            if self.accepted:
                connections.discard(self)
                super().connection_lost(exc)

    return TrackedConnection


async def _listen(
    host: str,
    port: int,
    handle: Callable[[ServerConnection], Awaitable[None]],
    respond: Callable[[ServerConnection, Request], Response | None],
    connections: _Connections,
) -> WebSocketServer:
    """Start to listen; every open connection is in `connections`."""
    if not 0 <= port <= 65535:
        raise AddressUnusable(host, port, "a port is a number from 0 to 65535")
    try:
        listener = await serve_websockets(
            handle,
            **_listening_options(host, port),
            process_request=respond,
            # Short messages gain little from compression and would be delayed by it.
            compression=None,
            server_header="unmask",
            open_timeout=5,
            ping_interval=10,
            ping_timeout=20,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_INCOMING_BYTES,
            write_limit=8 * 1024,
            logger=_library_logger(),
            create_connection=_tracked_connection(connections),
            backlog=BACKLOG,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(host, port) from error
        reason = (error.strerror or str(error)).lower()
        raise AddressUnusable(host, port, reason) from error
    for listening in listener.sockets:
        # asyncio uses its `backlog` both for the kernel's queue and for the connections accepted in one go;
        # the kernel's queue should be longer.
        with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
            duplicate.listen(LISTEN_BACKLOG)
    return listener


@contextmanager
def _accept_errors(refusals: RefusalLog) -> Iterator[None]:
    """Log once that the system cannot accept connections, instead of a traceback several times a second."""
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES and "socket" in context:
            text = f"{(error.strerror or str(error)).lower()}; raise the limit on open files (ulimit -n)"
            refusals.note("system", text)
        elif previous is not None:
            previous(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(previous)


async def _serve_client(
    connection: ServerConnection,
    broadcaster: Broadcaster,
    previews: PreviewPublisher | None,
    send_timeout_s: float,
) -> None:
    raw: socket.socket = connection.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    with (
        broadcaster.subscribe() as subscription,
        nullcontext() if previews is None else previews.connect(subscription.put_preview) as requests,
    ):
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send_all(connection, subscription, send_timeout_s))
            try:
                # Reading also detects that a client has left.
                while True:
                    _handle_message(await _receive(connection), requests)
            except ConnectionClosed as closed:
                logger.debug("a client has left: %s", closed)
            sending.cancel()


async def _receive(connection: ServerConnection) -> bytes:
    """Return the next message of a client, cut off at a length that no valid message has."""
    received = b""
    # Fragment by fragment, so that an endless message is not collected in memory.
    async for fragment in connection.recv_streaming(decode=False):
        received = (received + fragment)[: MAX_INCOMING_BYTES + 1]
    return received


def _handle_message(data: bytes, requests: PreviewRequests | None) -> None:
    """Carry out what a client asks for; anything else that it sends is ignored."""
    message = parse_client_message(data)
    if isinstance(message, PreviewRequest) and requests is not None:
        requests.request(message)


async def _send_all(connection: ServerConnection, subscription: Subscription, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            for data in subscription.opening:
                await connection.send(data, text=True)
            deadline.reschedule(None)
            async for encoded in subscription:
                deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
                await connection.send(encoded.data, text=isinstance(encoded, EncodedMessage))
                deadline.reschedule(None)
    except TimeoutError:
        logger.info("a client accepted no data for %g s and is disconnected", timeout_s)
        # A closing handshake would wait behind the data that the client does not accept.
        connection.transport.abort()
    except ConnectionClosed as closed:
        logger.debug("a client has left: %s", closed)


async def _close(listener: WebSocketServer, connections: _Connections) -> None:
    listener.close()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await listener.wait_closed()
    except TimeoutError:
        for connection in tuple(connections):
            connection.transport.abort()
        await listener.wait_closed()


def _listening_options(host: str, port: int) -> dict[str, Any]:
    """Return the options for listening; on all interfaces, both IPv4 and IPv6."""
    if host not in ("", "::") or not socket.has_dualstack_ipv6():
        return {"host": host, "port": port}
    return {"sock": socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)}


def _encode_response(response: HttpResponse, *, with_body: bool) -> Response:
    headers = Headers(
        {
            "Date": email.utils.formatdate(usegmt=True),
            "Connection": "close",
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **response.headers,
        }
    )
    body = response.body if with_body else b""
    return Response(response.status.value, response.status.phrase, headers, body)


def _port_of(listener: WebSocketServer) -> int:
    port: int = next(iter(listener.sockets)).getsockname()[1]
    return port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _library_logger() -> logging.Logger:
    """Return a logger for websockets that does not log the opening and closing of connections."""
    library = logging.getLogger(f"{__name__}.websockets")
    library.setLevel(logging.WARNING)
    return library
