"""Server for WebSocket clients and web pages on one port.

    async with serve(broadcaster, port=8765) as server:
        print(server.urls.dashboard)

I/O only: `access/gate.py` decides who is admitted, `http/router.py` on HTTP requests. `session.py` serves a
WebSocket client, and `client_queue.py` decides on the messages to drop for a slow one.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from runtime.errors import AddressUnusable, PortBusy, os_reason
from runtime.serving.access.gate import Admission, Gate, ProxyRules, Refusal
from runtime.serving.access.origins import Access
from runtime.serving.access.tokens import TokenSet
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.certificate import Certificate
from runtime.serving.connection import CLOSE_TIMEOUT_S, ClientConnection
from runtime.serving.http.exchange import HttpResponse, Route
from runtime.serving.http.login import login_routes
from runtime.serving.http.router import Router
from runtime.serving.metrics import Metrics
from runtime.serving.pages import LOGIN_PAGES, Pages, too_many_clients
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.serving.refusals import (
    BACKLOG,
    SPARE_CONNECTIONS,
    RefusalLog,
    client_limit,
    open_files_left,
)
from runtime.serving.session import MAX_INCOMING_BYTES, ClientSession, Commands, SessionServices

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
# Steps of the event loop from the acceptance of a connection until it is made.
ACCEPT_STEPS = 3
# Attempts to find a port that is free on every address of a host name.
PORT_ATTEMPTS = 20
# WebSocket clients that may be about to present a token in their first message; so few that others have room.
MAX_WITHOUT_TOKEN = 64
TOO_MANY_WITHOUT_TOKEN = "too many clients have not presented a token yet; try again in a few seconds"
# Time between checks for tokens that have ended and certificates that were renewed.
SECURITY_CHECK_S = 1.0


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
    def of(cls, host: str, port: int, *, secure: bool = False, base_path: str = "") -> Urls:
        """Return the addresses of a server; the loopback address if it listens on all interfaces."""
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        authority = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        secure_mark = "s" if secure else ""
        return cls(
            dashboard=f"http{secure_mark}://{authority}{base_path}/",
            overlay=f"http{secure_mark}://{authority}{base_path}/overlay",
            websocket=f"ws{secure_mark}://{authority}{base_path}/ws",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Host and port on which a running server listens.

    Args:
        host: Host as it was given.
        port: Actual port, never 0.
        secure: Whether it uses TLS.
        base_path: Path under which a proxy serves it.
        gate: Decides on requests; its tokens may be replaced.
    """

    host: str
    port: int
    secure: bool = False
    base_path: str = ""
    gate: Gate | None = None

    @property
    def urls(self) -> Urls:
        """Addresses to open."""
        return Urls.of(self.host, self.port, secure=self.secure, base_path=self.base_path)


@dataclass(frozen=True, kw_only=True)
class Security:
    """Tokens, proxy and TLS of a server.

    Args:
        tokens: Accepted tokens; None if none is required.
        proxy: Reverse proxy in front of the server.
        certificate: Certificate for TLS, which is loaded again when its files change; None for no TLS.
    """

    tokens: TokenSet | None = None
    proxy: ProxyRules = ProxyRules()  # noqa: RUF009  frozen
    certificate: Certificate | None = None


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
    security: Security | None = None,
    routes: Iterable[Route] = (),
    commands: Commands | None = None,
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
        security: Tokens, proxy and TLS; None for none of them.
        routes: Routes of other parts of the program, besides the pages.
        commands: Handlers of messages of WebSocket clients, by their type.

    Yields:
        The running server, with its host and port.

    Raises:
        PortBusy: Another program listens there.
        AddressUnusable: This machine, or this user, cannot listen there.
        ValueError: An allowed origin is malformed.
    """
    security = security or Security()
    gate = _make_gate(host, allow_origin, security)
    limit = client_limit(max_clients, open_files_left())
    if max_clients is not None and limit < max_clients:
        logger.warning("--max-clients is %d, not %d: the limit on open files is too low", limit, max_clients)
    refusals = RefusalLog(asyncio.get_running_loop().call_later)
    if metrics is not None:
        metrics.watch(broadcaster)
        refusals = RefusalLog(asyncio.get_running_loop().call_later, metrics.count_refusal)
    routes = (*login_routes(gate, LOGIN_PAGES), *routes)
    pages = Pages(broadcaster, gate.origins, metrics, limit, routes)
    services = SessionServices(
        broadcaster=broadcaster,
        gate=gate,
        commands=commands or {},
        refusals=refusals,
        previews=previews,
        send_timeout_s=send_timeout_s,
    )
    requests = _Requests(services, Router(pages, routes, base_path=security.proxy.base_path), security)
    connections = _Connections(limit, refusals)
    listener = await _listen(host, port, requests, connections, security.certificate)
    server = Server(
        host=host,
        port=_port_of(listener),
        secure=security.certificate is not None,
        base_path=security.proxy.base_path,
        gate=gate,
    )
    gate.cookie_name = f"unmask_{server.port}"
    if not is_loopback(host) and security.tokens is None:
        logger.warning("anyone who reaches this machine on port %d can watch the verdicts", server.port)
    watching = asyncio.create_task(_watch_security(security, gate, requests.sessions, routes))
    try:
        with _accept_errors(refusals):
            yield server
    finally:
        watching.cancel()
        await _close(listener, connections)
        refusals.flush()


class _Requests:
    """Responses to the requests of all connections, and the sessions of those that become WebSockets.

    Args:
        services: What the sessions share.
        router: Chooses the response to an admitted request.
        security: Tokens, proxy and TLS.
    """

    def __init__(self, services: SessionServices, router: Router, security: Security) -> None:
        self.sessions: set[ClientSession] = set()
        self._services = services
        self._router = router
        self._secure = security.certificate is not None

    async def respond(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the response; None for a WebSocket handshake that is accepted."""
        assert isinstance(connection, ClientConnection)
        admitted = self._services.gate.admit(
            request.method,
            request.path,
            list(request.headers.raw_items()),
            peer=_peer_of(connection),
            secure=self._secure,
        )
        if isinstance(admitted, Admission):
            connection.identity, connection.address = admitted.identity, admitted.address
            if self._has_no_room_for(admitted):
                admitted = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "clients", TOO_MANY_WITHOUT_TOKEN)
        response = await self._router.respond(request.method, admitted, connection)
        connection.discard_body()
        if response is None:
            return None
        if response.refusal is not None:
            self._services.refusals.note(response.refusal, response.body.decode(errors="replace").strip())
        return _encode_response(response, with_body=request.method != "HEAD")

    async def serve_client(self, connection: ServerConnection) -> None:
        """Serve a WebSocket client until it leaves."""
        assert isinstance(connection, ClientConnection)
        raw: socket.socket = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        session = ClientSession(connection, self._services)
        self.sessions.add(session)
        try:
            await session.run()
        finally:
            self.sessions.discard(session)

    def _has_no_room_for(self, admitted: Admission) -> bool:
        """Return whether a WebSocket without a token is one too many."""
        if admitted.identity.rights or "upgrade" not in admitted.headers:
            return False
        return sum(not session.identity.rights for session in self.sessions) >= MAX_WITHOUT_TOKEN


def _make_gate(host: str, allow_origin: Collection[str], security: Security) -> Gate:
    machine = socket.gethostname()
    origins = Access(allow_origin, names={host, machine, f"{machine}.local"})
    return Gate(origins, tokens=security.tokens, proxy=security.proxy)


async def _watch_security(
    security: Security, gate: Gate, sessions: set[ClientSession], routes: Sequence[Route]
) -> None:
    """End the sessions whose token has ended, and use a renewed certificate."""
    rechecks = [route.recheck for route in routes if route.recheck is not None]
    while True:
        await asyncio.sleep(SECURITY_CHECK_S)
        if security.certificate is not None:
            security.certificate.reload_if_changed()
        # All at the same time: each may take until the end of its closing handshake.
        await asyncio.gather(
            *(session.end() for session in sessions if session.token_ended),
            *(recheck(gate.still_valid) for recheck in rechecks),
        )


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
    requests: _Requests,
    connections: _Connections,
    certificate: Certificate | None,
) -> WebSocketServer:
    """Start to listen; every open connection is in `connections`."""
    if not 0 <= port <= 65535:
        raise AddressUnusable(host, port, "a port is a number from 0 to 65535")
    try:
        if port == 0 and host:
            port = await asyncio.to_thread(_shared_port, host)
        listener = await serve_websockets(
            requests.serve_client,
            **_listening_options(host, port),
            process_request=requests.respond,
            # Short messages gain little from compression and would be delayed by it.
            compression=None,
            server_header="unmask",
            # Limited by the connection for the head of a request, and by the body for the rest.
            open_timeout=None,
            ping_interval=10,
            ping_timeout=20,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_INCOMING_BYTES,
            write_limit=8 * 1024,
            logger=_library_logger(),
            create_connection=_tracked_connection(connections),
            backlog=BACKLOG,
            ssl=None if certificate is None else certificate.context,
            ssl_handshake_timeout=None if certificate is None else 5,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(host, port) from error
        reason = os_reason(error)
        raise AddressUnusable(host, port, reason) from error
    except UnicodeError as error:
        raise AddressUnusable(host, port, "it is not a host name") from error
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
            text = f"{os_reason(error)}; raise the limit on open files (ulimit -n)"
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


async def _close(listener: WebSocketServer, connections: _Connections) -> None:
    # A connection that has just been accepted is made first: asyncio's closed server would not know it, and
    # Python 3.11 would leave its socket open. Proactor event loops cannot stop to accept without closing.
    with suppress(NotImplementedError):
        for listening in listener.sockets:
            asyncio.get_running_loop().remove_reader(listening)
    for _ in range(ACCEPT_STEPS):
        await asyncio.sleep(0)
    listener.close()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await listener.wait_closed()
    except TimeoutError:
        for connection in tuple(connections):
            connection.transport.abort()
        await listener.wait_closed()


def _shared_port(host: str) -> int:
    """Return a port that is free on all addresses of a name such as `localhost`; 0 if it has only one."""
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    for _ in range(PORT_ATTEMPTS if len(addresses) > 1 else 0):
        port = 0
        with ExitStack() as sockets, suppress(OSError):
            for family, address in addresses:
                opened = sockets.enter_context(socket.socket(family))
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.bind((address[0], port, *address[2:]))
                port = opened.getsockname()[1]
            return port
    return 0


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
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            **response.headers,
        }
    )
    body = response.body if with_body else b""
    return Response(response.status.value, response.status.phrase, headers, body)


def _port_of(listener: WebSocketServer) -> int:
    port: int = next(iter(listener.sockets)).getsockname()[1]
    return port


def _peer_of(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if isinstance(peer, tuple) else ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _library_logger() -> logging.Logger:
    """Return a logger for websockets that does not log the opening and closing of connections."""
    library = logging.getLogger(f"{__name__}.websockets")
    library.setLevel(logging.WARNING)
    return library
