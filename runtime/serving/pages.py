"""HTTP responses of the server: web pages, the message schema, health and metrics.

No I/O: method, path and headers of a request are passed in; status, headers and body are returned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from urllib.parse import parse_qs

from runtime.serving.access.gate import Admission, missing_right
from runtime.serving.access.identity import LOCAL, Identity
from runtime.serving.access.origins import FILE_ORIGIN, Access, Authority
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.http.exchange import READABLE, HttpResponse, Route, refusal_response, text_response
from runtime.serving.metrics import Metrics

# Heartbeats are sent every second. After this time without any message, the monitor hangs and needs a
# restart.
SILENCE_S = 10.0

CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml; charset=utf-8",
}
WEB = resources.files("runtime.serving") / "web"


def _list_files(folder: Traversable, prefix: str = "/") -> Iterator[tuple[str, Traversable]]:
    """Yield the path of each file under `web`: `/` for `index.html`, `/overlay` for `overlay.html`."""
    for item in folder.iterdir():
        if item.is_dir():
            yield from _list_files(item, f"{prefix}{item.name}/")
        elif item.name == "index.html":
            yield prefix, item
        elif PurePosixPath(item.name).suffix in CONTENT_TYPES:
            yield prefix + item.name.removesuffix(".html"), item


FILES: Mapping[str, Traversable] = dict(_list_files(WEB))
# Pages for visitors without a token: the overlay presents one in its first message.
OPEN_PAGES = frozenset({"/login", "/overlay"})
# Pages on which a visitor without a token would only see errors.
LOGIN_PAGES = frozenset(path for path, item in FILES.items() if item.name.endswith(".html")) - OPEN_PAGES
SOCKET_PATHS = frozenset({"/ws", "/"})
# Files that pages of other origins may load: the overlay's element and what it imports.
SHARED_PATHS = frozenset(
    {"/overlay.js", "/asyncapi.yaml", *(path for path in FILES if path.startswith("/shared/"))}
)


def content_type_of(path: str) -> str:
    """Return the content type of a file under `web`, by its path on the server."""
    return CONTENT_TYPES[PurePosixPath(FILES[path].name).suffix]


class Pages:
    """Responses to HTTP requests, and the decision which requests may become WebSocket connections.

    Args:
        broadcaster: Source of the health report.
        access: Rules for hosts and origins.
        metrics: Exposed at `/metrics`; None if there is no such page.
        max_clients: Maximum number of WebSocket clients; None for no limit.
        routes: Routes of other parts of the program, of which the health report lists those that the sender
            may use; the dashboard links to them.
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        access: Access,
        metrics: Metrics | None = None,
        max_clients: int | None = None,
        routes: Iterable[Route] = (),
    ) -> None:
        self._routes = tuple(routes)
        self.max_clients = max_clients
        self.broadcaster = broadcaster
        self.access = access
        self.metrics = metrics
        self._files = {path: item.read_bytes() for path, item in FILES.items()}

    def respond(self, method: str, request: Admission, *, has_body: bool = False) -> HttpResponse | None:
        """Return the response to a request.

        Args:
            method: HTTP method, such as GET.
            request: The admitted request.
            has_body: Whether the request has a body, which is ignored.

        Returns:
            The response; None for a WebSocket handshake that is accepted. A sender without credentials may
            present a token in its first message.
        """
        path, headers = request.path, request.headers
        host = headers.get("host")
        if "websocket" in headers.get("upgrade", "").lower():
            if has_body:
                return text_response(HTTPStatus.BAD_REQUEST, "A WebSocket handshake has no body.")
            return self._handshake(path, headers.get("origin"), host)
        if method not in {"GET", "HEAD"}:
            return text_response(
                HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are allowed.", {"Allow": "GET, HEAD"}
            )
        if path == "/ws":
            # Browsers hide why a WebSocket was refused, so the page requests the reason with a plain GET.
            (origin,) = parse_qs(request.query).get("origin", [headers.get("origin")])[:1]
            return self._handshake(path, origin, host) or _unauthorised(request) or _no_upgrade(headers)
        if path == "/healthz":
            return _unauthorised(request) or self._health(request.identity)
        if path == "/metrics" and self.metrics is not None:
            return _unauthorised(request, all_streams=True) or self._expose(headers.get("accept"))
        if not request.identity.rights and path in LOGIN_PAGES:
            # Relative, so that it also holds under the base path of a proxy.
            location = "login" if path == "/" else f"login?page={path[1:]}"
            return HttpResponse(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": location})
        if path in self._files:
            content_type = content_type_of(path)
            return HttpResponse(HTTPStatus.OK, content_type, self._files[path], self._policy(path, host))
        return text_response(
            HTTPStatus.NOT_FOUND,
            "Not found. Paths: / /overlay /overlay.js /asyncapi.yaml /healthz /metrics /ws.",
        )

    def serves(self, path: str, method: str) -> bool:
        """Return whether there is a page at a path, for this method."""
        known = path in self._files or path in {"/ws", "/healthz", "/metrics"}
        return known and method in {"GET", "HEAD"}

    def _handshake(self, path: str, origin: str | None, host: str | None) -> HttpResponse | None:
        if path not in SOCKET_PATHS:
            return text_response(HTTPStatus.NOT_FOUND, "The WebSocket is at /ws.")
        if not self.access.allows_origin(origin, host):
            return _refusal(
                "origin",
                HTTPStatus.FORBIDDEN,
                f"Pages of origin {origin!r} may not connect to {host!r}; start unmask with "
                f"--allow-origin {origin}, or configure the proxy in between to forward the Host header.",
            )
        if self.max_clients is not None and self.broadcaster.clients >= self.max_clients:
            return _refusal("clients", HTTPStatus.SERVICE_UNAVAILABLE, too_many_clients(self.max_clients))
        return None

    def _expose(self, accept: str | None) -> HttpResponse:
        assert self.metrics is not None
        body, content_type = self.metrics.expose(accept)
        return HttpResponse(HTTPStatus.OK, content_type, body)

    def _health(self, identity: Identity) -> HttpResponse:
        silent_s = self.broadcaster.silent_s
        healthy = silent_s <= SILENCE_S
        visible = self.broadcaster.view(identity.streams)
        snapshot = visible.snapshot()
        # An offline camera does not make the program unhealthy, as a restart would not help.
        body = {
            "status": "ok" if healthy else "silent",
            "version": self.broadcaster.hello.version,
            "session": self.broadcaster.hello.session,
            "uptime_s": round(self.broadcaster.uptime_s, 3),
            "silent_s": round(silent_s, 3),
            "seq": snapshot.seq,
            "clients": visible.clients,
            "streams": {stream.stream: stream.state for stream in snapshot.streams},
            # Name of the sender's token, if the server requires one: the dashboard offers to log out.
            "token": None if identity is LOCAL else identity.name,
            "routes": sorted({route.path for route in self._routes if _is_offered(route, identity)}),
        }
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return HttpResponse(status, "application/json", json.dumps(body).encode("ascii"))

    def _policy(self, path: str, host: str | None) -> dict[str, str]:
        if path in SHARED_PATHS:
            return {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
        # The overlay may be framed by pages of allowed origins, the dashboard by none.
        parents = (
            {"*"} if "*" in self.access.allow_origin else self.access.allow_origin - {"null", FILE_ORIGIN}
        )
        framers = " ".join(sorted(parents)) if path == "/overlay" and parents else "'none'"
        # In some browsers 'self' does not include WebSockets of the same host.
        sockets = f" ws://{host} wss://{host}" if host and Authority.parse(host) else ""
        policy = (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "media-src 'self'",
            f"connect-src 'self'{sockets}",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {framers}",
        )
        return {
            "Content-Security-Policy": "; ".join(policy),
            "Cross-Origin-Resource-Policy": "same-origin",
        }


def too_many_clients(max_clients: int) -> str:
    """Return the reason for which a client is refused when there are too many."""
    return (
        f"{max_clients} clients are connected, which is the maximum; "
        "raise --max-clients, and the limit on open files (ulimit -n) if it is lower."
    )


def _no_upgrade(headers: Mapping[str, str]) -> HttpResponse:
    upgrade = {"Upgrade": "websocket"}
    if "sec-websocket-key" in headers:
        text = (
            "A WebSocket handshake arrived without its Upgrade header; "
            "configure the proxy in between to forward the headers Upgrade and Connection over HTTP/1.1."
        )
        return _refusal("proxy", HTTPStatus.UPGRADE_REQUIRED, text, upgrade)
    text = "This path is a WebSocket; /asyncapi.yaml describes its messages."
    return text_response(HTTPStatus.UPGRADE_REQUIRED, text, {**upgrade, **READABLE})


def _is_offered(route: Route, identity: Identity) -> bool:
    return route.right is not None and identity.may(route.right) and route.offered()


def _unauthorised(request: Admission, *, all_streams: bool = False) -> HttpResponse | None:
    """Return the refusal of a sender who may not read; None if it may."""
    identity = request.identity
    if identity.may("read") and not (all_streams and identity.streams is not None):
        return None
    return refusal_response(missing_right(identity, "read"))


def _refusal(
    cause: str, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    return text_response(status, text, {**(headers or {}), **READABLE}, refusal=cause)
