"""HTTP responses: every path, health, and protection against pages of other origins."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from runtime.messages import StreamMessage
from runtime.serving.access.gate import Gate, Refusal
from runtime.serving.access.origins import Access
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route, refusal_response
from runtime.serving.metrics import Metrics
from runtime.serving.pages import FILES, SILENCE_S, Pages
from tests.support.wire import ASYNCAPI, HELLO, asyncapi, make_broadcaster, validate, verdict

HOST = {"host": "127.0.0.1:8765"}
UPGRADE = {**HOST, "connection": "Upgrade", "upgrade": "websocket"}


def respond(
    pages: Pages, method: str, target: str, headers: dict[str, str], *, has_body: bool = False
) -> HttpResponse | None:
    """Return the response to a request with the given headers."""
    admitted = Gate(pages.access).admit(method, target, list(headers.items()), peer="127.0.0.1", secure=False)
    if isinstance(admitted, Refusal):
        return refusal_response(admitted)
    return pages.respond(method, admitted, has_body=has_body)


def get(pages: Pages, target: str, **headers: str) -> HttpResponse:
    """Request a page that is not a WebSocket handshake."""
    response = respond(pages, "GET", target, {**HOST, **headers})
    assert response is not None
    return response


@pytest.fixture
def pages() -> Pages:
    """Pages of a broadcaster without messages."""
    return Pages(make_broadcaster(), Access(), Metrics())


@pytest.mark.parametrize("path", sorted(FILES))
def test_every_file_has_its_content_type(pages: Pages, path: str) -> None:
    """Pages, scripts and styles have the content types that browsers require."""
    response = get(pages, path)
    assert response.status is HTTPStatus.OK
    kind = {"": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    suffix = path.rpartition(".")[2] if "." in path else ""
    assert response.content_type.partition(";")[0] == kind.get(suffix, "application/yaml")
    assert response.body


def test_the_query_does_not_change_the_page(pages: Pages) -> None:
    """The overlay reads its query in the browser."""
    assert get(pages, "/overlay?stream=cam&position=top").body == get(pages, "/overlay").body


def test_pages_have_a_strict_content_security_policy(pages: Pages) -> None:
    """The policy allows this server only, no framing and no inline script."""
    for path in ("/", "/overlay"):
        policy = get(pages, path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "connect-src 'self' ws://127.0.0.1:8765 wss://127.0.0.1:8765;" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_only_allowed_origins_may_frame_the_overlay() -> None:
    """--allow-origin permits framing of the overlay, never of the dashboard."""
    pages = Pages(make_broadcaster(), Access(["https://desk.example", "null"]))
    overlay, dashboard = (get(pages, path).headers["Content-Security-Policy"] for path in ("/overlay", "/"))
    assert overlay.endswith("frame-ancestors https://desk.example")
    assert dashboard.endswith("frame-ancestors 'none'")


def test_the_overlay_script_may_be_loaded_from_other_origins(pages: Pages) -> None:
    """Only the script for other pages, and what it imports, have a CORS header."""
    for path in ("/overlay.js", "/shared/feed.js"):
        assert get(pages, path).headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in get(pages, "/").headers
    assert "Access-Control-Allow-Origin" not in get(pages, "/healthz").headers


def test_another_host_name_is_refused_on_every_path(pages: Pages) -> None:
    """The response to a rebound name mentions the option that would permit it."""
    for path in ("/", "/overlay.js", "/metrics", "/healthz", "/ws"):
        response = respond(pages, "GET", path, {**UPGRADE, "host": "evil.example"})
        assert response is not None
        assert response.status is HTTPStatus.MISDIRECTED_REQUEST
        assert b"--allow-origin" in response.body


def test_handshakes_are_accepted_at_the_socket_paths(pages: Pages) -> None:
    """The WebSocket is at /ws, and at / for clients without a path."""
    assert respond(pages, "GET", "/ws", UPGRADE) is None
    assert respond(pages, "GET", "/ws?x=1", UPGRADE) is None
    assert respond(pages, "GET", "/", {**UPGRADE, "origin": "http://127.0.0.1:8765"}) is None
    wrong = respond(pages, "GET", "/socket", UPGRADE)
    assert wrong is not None
    assert wrong.status is HTTPStatus.NOT_FOUND
    assert b"/ws" in wrong.body


def test_a_refused_origin_gets_advice(pages: Pages) -> None:
    """The response names the option that would permit the page."""
    response = respond(pages, "GET", "/ws", {**UPGRADE, "origin": "https://desk.example"})
    assert response is not None
    assert response.status is HTTPStatus.FORBIDDEN
    assert b"--allow-origin https://desk.example" in response.body


def test_the_socket_path_explains_itself(pages: Pages) -> None:
    """A browser that opens the address of the WebSocket gets an explanation."""
    response = get(pages, "/ws")
    assert response.status is HTTPStatus.UPGRADE_REQUIRED
    assert response.headers["Upgrade"] == "websocket"


def test_unknown_paths_and_methods_are_refused(pages: Pages) -> None:
    """Unknown paths are 404, methods other than GET and HEAD 405."""
    assert get(pages, "/../runtime/server.py").status is HTTPStatus.NOT_FOUND
    assert get(pages, "/index.html").status is HTTPStatus.NOT_FOUND
    response = respond(pages, "POST", "/", HOST)
    assert response is not None
    assert response.status is HTTPStatus.METHOD_NOT_ALLOWED
    assert response.headers["Allow"] == "GET, HEAD"


def test_health_lists_the_streams() -> None:
    """A running program is healthy, also while a camera is offline."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    broadcaster.publish(StreamMessage(stream="door", state="offline", reason="refused"))
    response = get(Pages(broadcaster, Access()), "/healthz")
    body = json.loads(response.body)
    assert response.status is HTTPStatus.OK
    assert body["status"] == "ok"
    assert body["streams"] == {"cam": "live", "door": "offline"}
    assert (body["version"], body["session"], body["seq"]) == (HELLO.version, HELLO.session, 2)


def test_health_lists_the_routes_that_the_sender_may_use() -> None:
    """The dashboard links to what there is, and not to what needs another right."""

    async def handle(request: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    routes = [
        Route(path="/events", handle=handle),
        Route(path="/scans/", handle=handle, right="send"),
        Route(path="/login", handle=handle, right=None),
        Route(path="/admin", handle=handle, right="control"),
        Route(path="/whip/", handle=handle, right="send", offered=lambda: False),
    ]
    response = get(Pages(make_broadcaster(), Access(), routes=routes), "/healthz")
    body = json.loads(response.body)
    assert body["routes"] == ["/events", "/scans/"]
    # There is no token, so there is nothing to log out from.
    assert body["token"] is None


def test_a_silent_program_is_unhealthy() -> None:
    """Without messages for too long, /healthz returns 503."""
    now = 0.0
    broadcaster = Broadcaster(HELLO, clock=lambda: now)
    broadcaster.publish(verdict())
    pages = Pages(broadcaster, Access())
    now = SILENCE_S
    assert get(pages, "/healthz").status is HTTPStatus.OK
    now = SILENCE_S + 0.1
    response = get(pages, "/healthz")
    assert response.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(response.body)["status"] == "silent"


def test_metrics_are_optional(pages: Pages) -> None:
    """/metrics is Prometheus text; without metrics it is unknown."""
    response = get(pages, "/metrics")
    assert response.content_type.startswith("text/plain; version=")
    assert b"# TYPE unmask_verdicts_total counter" in response.body
    assert get(Pages(make_broadcaster(), Access()), "/metrics").status is HTTPStatus.NOT_FOUND


def test_asyncapi_is_served_and_consistent(pages: Pages) -> None:
    """asyncapi.yaml is served unchanged, its references resolve, and its examples are valid."""
    assert get(pages, "/asyncapi.yaml").body == ASYNCAPI.read_bytes()
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"

    def check_references(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: object = document
                for key in node["$ref"].removeprefix("#/").split("/"):
                    assert isinstance(target, dict)
                    target = target[key]
            for value in node.values():
                check_references(value)
        elif isinstance(node, list):
            for value in node:
                check_references(value)

    check_references(document)
    messages = document["components"]["messages"]
    assert set(messages) == set(document["channels"]["verdicts"]["messages"])
    for message in messages.values():
        for example in message["examples"]:
            validate(example["payload"])


def test_a_body_is_ignored_except_in_a_handshake(pages: Pages) -> None:
    """A GET with a body gets its page; a WebSocket handshake with one is refused."""
    page = respond(pages, "GET", "/healthz", HOST, has_body=True)
    assert page is not None
    assert page.status is HTTPStatus.OK
    refused = respond(pages, "GET", "/ws", UPGRADE, has_body=True)
    assert refused is not None
    assert refused.status is HTTPStatus.BAD_REQUEST
