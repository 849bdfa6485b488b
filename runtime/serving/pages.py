"""What the server answers to plain HTTP: the pages, the description of the messages, health and metrics.

Pure: a request's method, path and headers go in, and a status, headers and a body come out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import resources

from runtime.serving.access import Access, Authority
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.metrics import Metrics

# Heartbeats come every second; after this long without any message the monitor hangs and wants a restart.
SILENCE_S = 10.0

_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", _HTML),
    "/index.js": ("index.js", _SCRIPT),
    "/index.css": ("index.css", _STYLE),
    "/overlay": ("overlay.html", _HTML),
    "/overlay.js": ("overlay.js", _SCRIPT),
    "/overlay-page.js": ("overlay-page.js", _SCRIPT),
    "/overlay.css": ("overlay.css", _STYLE),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/asyncapi.yaml": ("asyncapi.yaml", "application/yaml; charset=utf-8"),
}
SOCKET_PATHS = frozenset({"/ws", "/"})
# What a page elsewhere embeds or a generator elsewhere reads: public, and the same for everyone.
SHARED_PATHS = frozenset({"/overlay.js", "/asyncapi.yaml"})


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Holds an HTTP response.

    Args:
        status: The status code.
        content_type: Of the body.
        body: The body; left out of a response to HEAD, though its length is stated.
        headers: Further headers.
    """

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpRoutes:
    """Answers HTTP requests, and decides which of them may become a WebSocket.

    Args:
        hub: Whose health is told.
        access: Who is let in.
        metrics: What `/metrics` exposes; without it the path is unknown.
    """

    def __init__(self, broadcaster: Broadcaster, access: Access, metrics: Metrics | None = None) -> None:
        self.broadcaster = broadcaster
        self.access = access
        self.metrics = metrics
        web = resources.files("runtime.serving") / "web"
        self._files = {path: (web / name).read_bytes() for path, (name, _) in FILES.items()}

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> HttpAnswer | None:
        """Decide on one request.

        Args:
            method: GET and so on.
            target: The path with its query.
            headers: By name in lower case.

        Returns:
            The response; None if this is a WebSocket handshake that may go on.
        """
        path = target.partition("?")[0]
        host = headers.get("host")
        if not self.access.allows_host(host):
            return _text(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server does not answer to the name {host!r}; "
                "start it with --allow-origin and the origin under which you open it.",
            )
        if "websocket" in headers.get("upgrade", "").lower():
            return self._handshake(path, headers.get("origin"), host)
        if method not in {"GET", "HEAD"}:
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.", {"Allow": "GET, HEAD"})
        if path == "/ws":
            return _text(
                HTTPStatus.UPGRADE_REQUIRED,
                "This is a WebSocket; /asyncapi.yaml describes its messages.",
                {"Upgrade": "websocket"},
            )
        if path == "/healthz":
            return self._health()
        if path == "/metrics" and self.metrics is not None:
            body, content_type = self.metrics.expose(headers.get("accept"))
            return HttpAnswer(HTTPStatus.OK, content_type, body)
        if path in self._files:
            return HttpAnswer(HTTPStatus.OK, FILES[path][1], self._files[path], self._policy(path, host))
        return _text(
            HTTPStatus.NOT_FOUND,
            "Nothing here; there are / /overlay /overlay.js /asyncapi.yaml /healthz /metrics /ws.",
        )

    def _handshake(self, path: str, origin: str | None, host: str | None) -> HttpAnswer | None:
        if path not in SOCKET_PATHS:
            return _text(HTTPStatus.NOT_FOUND, "The WebSocket is at /ws.")
        if not self.access.allows_origin(origin, host):
            return _text(
                HTTPStatus.FORBIDDEN,
                f"Pages of origin {origin!r} may not connect; start unmask with --allow-origin {origin}",
            )
        return None

    def _health(self) -> HttpAnswer:
        silent_s = self.broadcaster.silent_s
        healthy = silent_s <= SILENCE_S
        present = self.broadcaster.snapshot()
        # A camera that is off is no reason to restart this program, so only silence makes it unhealthy.
        body = {
            "status": "ok" if healthy else "silent",
            "version": self.broadcaster.identity.version,
            "session": self.broadcaster.identity.session,
            "uptime_s": round(self.broadcaster.uptime_s, 3),
            "silent_s": round(silent_s, 3),
            "seq": present["seq"],
            "clients": self.broadcaster.clients,
            "streams": {stream["stream"]: stream["state"] for stream in present["streams"]},
        }
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return HttpAnswer(status, "application/json", json.dumps(body).encode("ascii"))

    def _policy(self, path: str, host: str | None) -> dict[str, str]:
        if path in SHARED_PATHS:
            return {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
        # An overlay may be put into the page of an allowed origin; the dashboard goes into none.
        parents = {"*"} if "*" in self.access.allow_origin else self.access.allow_origin - {"null"}
        framers = " ".join(sorted(parents)) if path == "/overlay" and parents else "'none'"
        # Not every browser counts a WebSocket of the same host as 'self'.
        sockets = f" ws://{host} wss://{host}" if host and Authority.parse(host) else ""
        policy = (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self'{sockets}",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {framers}",
        )
        return {
            "Content-Security-Policy": "; ".join(policy),
            "Cross-Origin-Resource-Policy": "same-origin",
        }


def _text(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(
        status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"), headers or {}
    )
