"""Every path has its answer, and no answer helps a foreign page."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from runtime.messages import StreamMessage
from runtime.serving.access import Access
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.metrics import Metrics
from runtime.serving.pages import FILES, SILENCE_S, HttpResponse, Pages
from tests.support.wire import ASYNCAPI, HELLO, asyncapi, make_broadcaster, validate, verdict

HOST = {"host": "127.0.0.1:8765"}
UPGRADE = {**HOST, "connection": "Upgrade", "upgrade": "websocket"}


def get(pages: Pages, target: str, **headers: str) -> HttpResponse:
    """Ask for a page that must have an answer."""
    answer = pages.respond("GET", target, {**HOST, **headers})
    assert answer is not None
    return answer


@pytest.fixture
def pages() -> Pages:
    """The pages of a hub that has said nothing yet."""
    return Pages(make_broadcaster(), Access(), Metrics())


@pytest.mark.parametrize("path", sorted(FILES))
def test_every_file_is_served_with_its_type(pages: Pages, path: str) -> None:
    """The pages and what they need are there, under types that browsers insist on."""
    answer = get(pages, path)
    assert answer.status is HTTPStatus.OK
    assert answer.content_type == FILES[path][1]
    assert answer.body


def test_a_query_does_not_change_the_page(pages: Pages) -> None:
    """The overlay is set up by its query, which the server leaves to it."""
    assert get(pages, "/overlay?stream=cam&position=top").body == get(pages, "/overlay").body


def test_the_pages_may_load_and_reach_nothing_else(pages: Pages) -> None:
    """The policy names this server only, keeps pages out of frames and allows no inline script."""
    for path in ("/", "/overlay"):
        policy = get(pages, path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "connect-src 'self' ws://127.0.0.1:8765 wss://127.0.0.1:8765;" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_only_an_allowed_page_may_frame_the_overlay() -> None:
    """--allow-origin opens the overlay to that page's frames, and the dashboard to nobody's."""
    pages = Pages(make_broadcaster(), Access(["https://desk.example", "null"]))
    overlay, dashboard = (get(pages, path).headers["Content-Security-Policy"] for path in ("/overlay", "/"))
    assert overlay.endswith("frame-ancestors https://desk.example")
    assert dashboard.endswith("frame-ancestors 'none'")


def test_the_component_may_be_loaded_from_elsewhere(pages: Pages) -> None:
    """The script that other pages embed is a module, which browsers load across origins only if told so."""
    assert get(pages, "/overlay.js").headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in get(pages, "/").headers
    assert "Access-Control-Allow-Origin" not in get(pages, "/healthz").headers


def test_a_foreign_name_gets_nothing(pages: Pages) -> None:
    """A request under a rebound name is turned away from every path, and learns what would let it in."""
    for path in ("/", "/overlay.js", "/metrics", "/healthz", "/ws"):
        answer = pages.respond("GET", path, {**UPGRADE, "host": "evil.example"})
        assert answer is not None
        assert answer.status is HTTPStatus.MISDIRECTED_REQUEST
        assert b"--allow-origin" in answer.body


def test_handshakes_go_through_where_the_socket_is(pages: Pages) -> None:
    """The WebSocket is at /ws and, for those who give no path, at /."""
    assert pages.respond("GET", "/ws", UPGRADE) is None
    assert pages.respond("GET", "/ws?x=1", UPGRADE) is None
    assert pages.respond("GET", "/", {**UPGRADE, "origin": "http://127.0.0.1:8765"}) is None
    wrong = pages.respond("GET", "/socket", UPGRADE)
    assert wrong is not None
    assert wrong.status is HTTPStatus.NOT_FOUND
    assert b"/ws" in wrong.body


def test_a_foreign_page_is_refused_with_what_to_do(pages: Pages) -> None:
    """The refusal names the option that would let the page in."""
    answer = pages.respond("GET", "/ws", {**UPGRADE, "origin": "https://desk.example"})
    assert answer is not None
    assert answer.status is HTTPStatus.FORBIDDEN
    assert b"--allow-origin https://desk.example" in answer.body


def test_the_socket_opened_as_a_page_says_what_it_is(pages: Pages) -> None:
    """Someone who types the WebSocket's address into a browser is told."""
    answer = get(pages, "/ws")
    assert answer.status is HTTPStatus.UPGRADE_REQUIRED
    assert answer.headers["Upgrade"] == "websocket"


def test_unknown_paths_and_methods(pages: Pages) -> None:
    """What is not there is not found, and nothing here takes anything in."""
    assert get(pages, "/../runtime/server.py").status is HTTPStatus.NOT_FOUND
    assert get(pages, "/index.html").status is HTTPStatus.NOT_FOUND
    answer = pages.respond("POST", "/", HOST)
    assert answer is not None
    assert answer.status is HTTPStatus.METHOD_NOT_ALLOWED
    assert answer.headers["Allow"] == "GET, HEAD"


def test_health_tells_the_streams() -> None:
    """A living program is healthy, also while a camera is off, and says which."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    broadcaster.publish(StreamMessage(stream="door", state="offline", reason="refused"))
    answer = get(Pages(broadcaster, Access()), "/healthz")
    body = json.loads(answer.body)
    assert answer.status is HTTPStatus.OK
    assert body["status"] == "ok"
    assert body["streams"] == {"cam": "live", "door": "offline"}
    assert (body["version"], body["session"], body["seq"]) == (HELLO.version, HELLO.session, 2)


def test_a_program_that_hangs_is_not_healthy() -> None:
    """Without heartbeats the program wants a restart, and /healthz says so to whoever can give it one."""
    now = 0.0
    broadcaster = Broadcaster(HELLO, clock=lambda: now)
    broadcaster.publish(verdict())
    pages = Pages(broadcaster, Access())
    now = SILENCE_S
    assert get(pages, "/healthz").status is HTTPStatus.OK
    now = SILENCE_S + 0.1
    answer = get(pages, "/healthz")
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(answer.body)["status"] == "silent"


def test_metrics_are_there_if_there_are_any(pages: Pages) -> None:
    """/metrics is Prometheus text; without metrics the path is unknown."""
    answer = get(pages, "/metrics")
    assert answer.content_type.startswith("text/plain; version=")
    assert b"# TYPE unmask_verdicts_total counter" in answer.body
    assert get(Pages(make_broadcaster(), Access()), "/metrics").status is HTTPStatus.NOT_FOUND


def test_the_description_is_whole(pages: Pages) -> None:
    """asyncapi.yaml is served as it is, every reference in it leads somewhere, and its examples are valid."""
    assert get(pages, "/asyncapi.yaml").body == ASYNCAPI.read_bytes()
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"

    def follow(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: object = document
                for key in node["$ref"].removeprefix("#/").split("/"):
                    assert isinstance(target, dict)
                    target = target[key]
            for value in node.values():
                follow(value)
        elif isinstance(node, list):
            for value in node:
                follow(value)

    follow(document)
    messages = document["components"]["messages"]
    assert set(messages) == set(document["channels"]["verdicts"]["messages"])
    for message in messages.values():
        for example in message["examples"]:
            validate(example["payload"])
