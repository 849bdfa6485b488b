"""HTTP request, response and route.

    async def delete(request: HttpRequest) -> HttpResponse: ...
    serve(broadcaster, routes=[Route(path="/events/", methods={"DELETE"}, right="control", handle=delete)])

The server checks the right of the route. A handler that answers about one stream also calls
`request.identity.require("read", stream=name)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from runtime.serving.access.gate import Refusal
from runtime.serving.access.identity import Identity, Right
from runtime.serving.http.body import RequestBody

# Lets a page of any origin read, and show, the reason why it is refused.
READABLE = {"Access-Control-Allow-Origin": "*"}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """HTTP response.

    Args:
        status: Status code.
        content_type: Content type of the body.
        body: Body; the server omits it from a response to HEAD but states its length.
        headers: Further headers; they replace those that the server adds to every response.
        refusal: Why a client is refused, for the log: `host`, `origin`, `proxy`, `clients`, `token` or
            `right`; else None.
    """

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """HTTP request of an accepted sender.

    Args:
        method: HTTP method, such as GET.
        path: Path, without the base path of a proxy and without the query; still percent-encoded.
        query: Parameters of the query; of a repeated one, the last value.
        headers: Headers by their names in lower case.
        identity: Sender and its rights.
        address: Address of the client, also behind a proxy.
        secure: Whether the client uses HTTPS, also behind a proxy.
        body: Body, to be read by the handler; empty without one.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    identity: Identity
    address: str
    secure: bool
    body: RequestBody


@dataclass(frozen=True, kw_only=True)
class Route:
    """Handler of the requests to a path.

    Args:
        path: Path; if it ends in `/`, of all paths below it too.
        handle: Called on the event loop for a request with one of the methods.
        methods: Methods besides HEAD, which is answered like GET without the body.
        right: Right that the sender needs; None for a page without data, which everyone may see.
        max_body_bytes: Largest body accepted; larger ones get HTTP 413 before the handler is called. The body
            must state its length.
        offered: Whether the health report lists the route, so that the dashboard links to its page.
        recheck: Called every second with a function that returns whether an identity is still valid; ends
            what outlives its request.
    """

    path: str
    handle: Callable[[HttpRequest], Awaitable[HttpResponse]]
    methods: Collection[str] = ("GET",)
    right: Right | None = "read"
    max_body_bytes: int = 0
    offered: Callable[[], bool] = lambda: True
    recheck: Callable[[Callable[[Identity], bool]], Awaitable[None]] | None = None

    def matches(self, path: str) -> bool:
        """Return whether the route serves a path."""
        return path == self.path or (self.path.endswith("/") and path.startswith(self.path))


def text_response(
    status: HTTPStatus,
    text: str,
    headers: Mapping[str, str] | None = None,
    *,
    refusal: str | None = None,
) -> HttpResponse:
    """Return a response of one line of plain text.

    Args:
        status: Status code.
        text: The line, without a line break.
        headers: Further headers.
        refusal: Why a client is refused; see `HttpResponse`.
    """
    body = f"{text}\n".encode(errors="replace")
    return HttpResponse(status, "text/plain; charset=utf-8", body, headers or {}, refusal)


def refusal_response(refusal: Refusal) -> HttpResponse:
    """Return the response to a refused request; pages of any origin may read the reason."""
    return text_response(
        refusal.status, refusal.reason, {**refusal.headers, **READABLE}, refusal=refusal.cause
    )
