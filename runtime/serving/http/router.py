"""Choice of the handler of an admitted request: a route, or the pages."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl

from runtime.serving.access.gate import Admission, Refusal, missing_right
from runtime.serving.access.identity import RightMissing
from runtime.serving.connection import ClientConnection
from runtime.serving.http.body import BodyTooLong
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route, refusal_response, text_response
from runtime.serving.pages import Pages

logger = logging.getLogger(__name__)


class Router:
    """Responses to admitted requests.

    Args:
        pages: Pages of the server, and the decision on WebSocket handshakes.
        routes: Routes of other parts of the program; the first that matches a path counts, before the pages.
        base_path: Path under which a proxy serves this server; empty for the root.
    """

    def __init__(self, pages: Pages, routes: Iterable[Route] = (), *, base_path: str = "") -> None:
        self._pages = pages
        self._routes = tuple(routes)
        self._base_path = base_path

    async def respond(
        self, method: str, admitted: Admission | Refusal, connection: ClientConnection
    ) -> HttpResponse | None:
        """Return the response to a request.

        Args:
            method: HTTP method.
            admitted: Decision of the gate.
            connection: Connection of the client, from which the body is read.

        Returns:
            The response; None for a WebSocket handshake that is accepted.

        Raises:
            ConnectionError: The client left while its request was handled.
        """
        if isinstance(admitted, Refusal):
            return refusal_response(admitted)
        if self._base_path and admitted.path == self._base_path:
            # Without the slash, the relative addresses on the pages would lead out of the base path.
            location = self._base_path.rpartition("/")[2] + "/"
            return HttpResponse(HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", {"Location": location})
        matching = [route for route in self._routes if route.matches(admitted.path)]
        # A head request is answered like GET.
        wanted = "GET" if method == "HEAD" else method
        for route in matching:
            if wanted in route.methods:
                return await _handle(route, method, admitted, connection)
        if matching and not self._pages.serves(admitted.path, method):
            allowed = ", ".join(sorted({name for route in matching for name in route.methods}))
            text = f"The methods allowed here: {allowed}."
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": allowed})
        return self._pages.respond(method, admitted, has_body=connection.has_body)


async def _handle(
    route: Route, method: str, admitted: Admission, connection: ClientConnection
) -> HttpResponse:
    if route.right is not None and not admitted.identity.may(route.right):
        return refusal_response(missing_right(admitted.identity, route.right))
    if connection.body_length is None:
        return text_response(HTTPStatus.LENGTH_REQUIRED, "State the length of the body (Content-Length).")
    if connection.body_length > route.max_body_bytes:
        text = f"The body has {connection.body_length} bytes; at most {route.max_body_bytes} are accepted."
        return text_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
    request = HttpRequest(
        method=method,
        path=admitted.path,
        query=dict(parse_qsl(admitted.query, keep_blank_values=True)),
        headers=admitted.headers,
        identity=admitted.identity,
        address=admitted.address,
        secure=admitted.secure,
        body=connection.receive_body(),
    )
    try:
        return await route.handle(request)
    except RightMissing as error:
        return refusal_response(missing_right(admitted.identity, error.right, error))
    except BodyTooLong as error:
        return text_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{error}.")
    except ConnectionError:
        raise
    except Exception:
        logger.exception("internal error in the handler of %s %s", method, route.path)
        return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error; the log has its traceback.")
