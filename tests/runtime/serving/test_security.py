"""Server with tokens, routes and TLS: real requests and WebSockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import HeartbeatMessage, StreamHealth, StreamMessage
from runtime.serving.access.identity import RightMissing
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route
from runtime.serving.metrics import Metrics
from runtime.serving.server import Security, Server, serve
from tests.support.aio import TIMEOUT_S, run
from tests.support.wire import make_broadcaster, validate, verdict

ADMIN, GUARD, SENDER = "admin-token-0123456789", "guard-token-0123456789", "sender-token-0123456789"
TOKENS = TokenSet(
    parse_tokens(f"{ADMIN} read control send\n{GUARD} read:door\n{SENDER} send", Path("tokens"))
)
MAX_BODY = 8 * 1024 * 1024


async def count(request: HttpRequest) -> HttpResponse:
    """Count the bytes of the body."""
    size = sum([len(part) async for part in request.body])
    return HttpResponse(HTTPStatus.OK, "text/plain", str(size).encode())


async def show(request: HttpRequest) -> HttpResponse:
    """Show what the handler sees of the request."""
    stream = request.query.get("stream", "door")
    if stream == "bug":
        raise RuntimeError("a bug")
    request.identity.require("read", stream=stream)
    return HttpResponse(HTTPStatus.OK, "text/plain", f"{request.method} {request.path}".encode())


ROUTES = [
    Route(path="/count", handle=count, methods=("POST",), right="send", max_body_bytes=MAX_BODY),
    Route(path="/show/", handle=show),
]


@pytest.fixture(scope="module")
def broadcaster() -> Broadcaster:
    """Broadcaster of the shared server, with two streams."""
    broadcaster = make_broadcaster()
    for stream in ("door", "yard"):
        broadcaster.publish(StreamMessage(stream=stream, state="live"))
    return broadcaster


@pytest.fixture(scope="module")
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """Server that requires a token."""
    with serve_in_thread(
        broadcaster, port=0, metrics=Metrics(), security=Security(tokens=TOKENS), routes=ROUTES
    ) as running:
        yield running


def request(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request and return status, headers and body of the response."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, body=body, headers=named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def client(server: Server, token: str | None = None) -> AsyncIterator[ClientConnection]:
    headers = None if token is None else bearer(token)
    async with connect(server.urls.websocket, proxy=None, additional_headers=headers) as connection:
        yield connection


async def receive(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await connection.recv())
    validate(message)
    return message


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/ws", "/show/x"])
def test_nothing_is_shown_without_a_token(server: Server, path: str) -> None:
    """Without a token, with a wrong one and with one that may not read, data is refused."""
    status, headers, body = request(server, "GET", path)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="unmask"')
    assert b"token" in body
    assert request(server, "GET", path, **bearer(SENDER))[0] == 403
    assert request(server, "GET", path, **bearer(ADMIN))[0] == (426 if path == "/ws" else 200)
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_pages_without_data_need_no_token(server: Server) -> None:
    """The overlay and its script are loaded first and send the token in the first message."""
    for path in ("/overlay", "/overlay.js", "/icon.svg", "/login", "/login.css"):
        status, _, body = request(server, "GET", path)
        assert status == 200, path
        assert b"door" not in body
    for path in ("/", "/scan", "/overlay-setup"):
        status, headers, _ = request(server, "GET", path)
        assert (status, headers["Location"]) == (303, "login" if path == "/" else f"login?page={path[1:]}")


def test_the_login_page_gives_a_cookie(server: Server) -> None:
    """The cookie opens pages and data; it is not the token and cannot be read by scripts."""
    form = urllib.parse.urlencode({"token": f"{ADMIN}\n"})
    status, headers, _ = request(server, "POST", "/login", form)
    assert (status, headers["Location"]) == (303, "./")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ADMIN not in cookie
    value = cookie.partition(";")[0]
    assert request(server, "GET", "/", Cookie=value)[0] == 200
    assert json.loads(request(server, "GET", "/healthz", Cookie=value)[2])["status"] == "ok"
    status, headers, _ = request(server, "POST", "/logout", Cookie=value)
    assert (status, "Max-Age=0" in headers["Set-Cookie"]) == (303, True)


@pytest.mark.parametrize(
    ("page", "location"),
    [
        ("scan", "./scan"),
        ("overlay-setup", "./overlay-setup"),
        ("//evil.example", "./"),
        ('"><script>', "./"),
    ],
)
def test_the_login_leads_to_the_page_that_was_opened(server: Server, page: str, location: str) -> None:
    """Only to a page of this server, also after a wrong token."""
    query = urllib.parse.urlencode({"page": page})
    wanted = f'name="page" value="{location[2:]}"'.encode()
    assert wanted in request(server, "GET", f"/login?{query}")[2]
    with serve_in_thread(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as another:
        assert wanted in request(another, "POST", "/login", f"token=wrong&{query}")[2]
    status, headers, _ = request(server, "POST", "/login", f"token={ADMIN}&{query}")
    assert (status, headers["Location"]) == (303, location)


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("token=wrong", b"The token is wrong."),
        ("token=", b"The token is empty."),
        ("", b"The token is empty."),
        ("%", b"The token is empty."),
    ],
)
def test_a_wrong_login_shows_the_reason(form: str, problem: bytes) -> None:
    """The page is shown again with the reason, and without a cookie."""
    with serve_in_thread(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server:
        status, headers, body = request(server, "POST", "/login", form)
    assert status == 401
    assert b'role="alert">' + problem in body
    assert "Set-Cookie" not in headers
    assert request_is_strict(headers)


def request_is_strict(headers: http.client.HTTPMessage) -> bool:
    policy = headers["Content-Security-Policy"]
    return "default-src 'none'" in policy and "form-action 'self'" in policy and "unsafe" not in policy


def test_a_form_of_another_page_is_refused(server: Server) -> None:
    """Another site cannot log a browser in."""
    form = urllib.parse.urlencode({"token": ADMIN})
    assert request(server, "POST", "/login", form, Origin="https://evil.example")[0] == 403


def test_wrong_tokens_from_many_connections_are_slowed_down() -> None:
    """Few of them are examined, each is answered, and an open session is not disturbed."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        metrics = Metrics()
        async with (
            serve(broadcaster, port=0, metrics=metrics, security=Security(tokens=TOKENS)) as server,
            client(server, ADMIN) as reading,
        ):
            assert [(await receive(reading))["type"] for _ in range(2)] == ["hello", "snapshot"]

            async def attempt(number: int) -> int:
                try:
                    async with client(server, f"wrong-token-{number:012}"):
                        return 101
                except InvalidStatus as refused:
                    return refused.response.status_code

            statuses = await asyncio.gather(*(attempt(number) for number in range(200)))
            assert set(statuses) == {401, 429}
            assert statuses.count(401) <= 8
            broadcaster.publish(verdict())
            assert (await receive(reading))["type"] == "verdict"
        exposed = metrics.expose()[0].decode()
        assert 'unmask_connections_refused_total{cause="token"} 200.0' in exposed

    run(scenario)


def test_the_first_message_may_be_a_token(server: Server, broadcaster: Broadcaster) -> None:
    """A browser on a page of another origin cannot set a header."""

    async def scenario() -> None:
        async with client(server) as connection:
            await connection.send(json.dumps({"type": "auth", "token": ADMIN, "id": "1"}))
            assert (await receive(connection))["type"] == "hello"
            assert len((await receive(connection))["streams"]) == 2
            # A later one answers, if it has an id.
            await connection.send(json.dumps({"type": "auth", "token": GUARD, "id": "2"}))
            answer = await receive(connection)
            assert (answer["type"], answer["id"], answer["error"]) == ("result", "2", None)

    run(scenario)


@pytest.mark.parametrize(
    "first",
    [
        json.dumps({"type": "auth", "token": "wrong"}),
        json.dumps({"type": "auth", "token": ""}),
        json.dumps({"type": "auth", "token": None}),
        json.dumps({"type": "auth", "token": SENDER}),
        json.dumps({"type": "request_previews"}),
        "hello?",
        b"\xff\x00",
    ],
)
def test_another_first_message_ends_the_connection(first: str | bytes) -> None:
    """The client receives nothing but the reason."""

    async def scenario() -> None:
        async with (
            serve(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server,
            client(server) as connection,
        ):
            await connection.send(first)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 4401
            assert "token" in str(connection.close_reason)

    run(scenario)


def test_a_client_without_a_first_message_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not hold a connection, but has its time also while other sessions are checked."""
    monkeypatch.setattr("runtime.serving.session.AUTH_TIMEOUT_S", 0.1)
    monkeypatch.setattr("runtime.serving.server.SECURITY_CHECK_S", 0.01)

    async def scenario() -> None:
        async with (
            serve(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server,
            client(server) as connection,
        ):
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 4401

    run(scenario)


def test_clients_without_a_token_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many may be about to present one."""
    monkeypatch.setattr("runtime.serving.server.MAX_WITHOUT_TOKEN", 3)

    async def scenario() -> None:
        async with serve(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server:
            waiting = [await connect(server.urls.websocket, proxy=None) for _ in range(3)]
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.urls.websocket, proxy=None)
            assert refused.value.response.status_code == 503
            async with client(server, ADMIN) as connection:
                assert (await receive(connection))["type"] == "hello"
            await waiting[0].close()
            async with client(server) as connection:
                await connection.send(json.dumps({"type": "auth", "token": ADMIN}))
                assert (await receive(connection))["type"] == "hello"
            for other in waiting[1:]:
                await other.close()

    run(scenario)


def test_a_limited_token_sees_its_stream_only() -> None:
    """Messages, heartbeat, snapshot and health contain no other stream, and numbers have no gap."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        for stream in ("yard", "door"):
            broadcaster.publish(StreamMessage(stream=stream, state="live"))
            broadcaster.publish(verdict(stream=stream))
        async with serve(broadcaster, port=0, security=Security(tokens=TOKENS)) as server:
            async with client(server, GUARD) as connection:
                hello, snapshot = await receive(connection), await receive(connection)
                assert [message["stream"] for message in snapshot["streams"]] == ["door"]
                assert [message["stream"] for message in snapshot["verdicts"]] == ["door"]
                healths = tuple(StreamHealth(stream=name, state="live") for name in ("yard", "door"))
                broadcaster.publish(verdict(stream="yard"))
                broadcaster.publish(verdict(stream="door"))
                broadcaster.publish(HeartbeatMessage(uptime_s=1, streams=healths))
                first, second = await receive(connection), await receive(connection)
                assert (first["type"], first["stream"]) == ("verdict", "door")
                assert [health["stream"] for health in second["streams"]] == ["door"]
                assert [first["seq"], second["seq"]] == [hello["seq"] + 1, hello["seq"] + 2]
                assert broadcaster.clients == 1
                await connection.send(json.dumps({"type": "request_previews", "id": "1"}))
                answer = await receive(connection)
                assert (answer["type"], answer["seq"]) == ("result", second["seq"])
            broadcaster.publish(verdict(stream="door"))
            async with client(server, GUARD) as again:
                assert (await receive(again))["seq"] == second["seq"] + 1
            async with client(server, ADMIN) as other:
                await receive(other)
                response = await asyncio.to_thread(request, server, "GET", "/healthz", **bearer(GUARD))
            health = json.loads(response[2])
            assert health["streams"] == {"door": "live"}
            assert (health["seq"], health["clients"]) == (second["seq"] + 1, 0)
            metrics = await asyncio.to_thread(request, server, "GET", "/show/x?stream=yard", **bearer(GUARD))
            assert metrics[0] == 404

    run(scenario)


def test_a_removed_token_ends_its_connections() -> None:
    """Others continue."""

    async def scenario() -> None:
        async with (
            serve(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server,
            client(server, ADMIN) as admin,
            client(server, GUARD) as guard,
        ):
            assert server.gate is not None
            for connection in (admin, guard):
                assert (await receive(connection))["type"] == "hello"
            server.gate.tokens = TokenSet(parse_tokens(f"{ADMIN} read control send", Path("tokens")))
            await guard.wait_closed()
            assert guard.close_code == 4403
            assert (await receive(admin))["type"] == "snapshot"

    run(scenario)


@pytest.mark.parametrize("removed", [ADMIN, SENDER])
def test_a_second_token_does_not_keep_the_first_one_alive(removed: str) -> None:
    """The first one decides what the client reads, so the connection ends with it, as with the second."""

    async def scenario() -> None:
        async with (
            serve(make_broadcaster(), port=0, security=Security(tokens=TOKENS)) as server,
            client(server, ADMIN) as connection,
        ):
            assert server.gate is not None
            assert [(await receive(connection))["type"] for _ in range(2)] == ["hello", "snapshot"]
            await connection.send(json.dumps({"type": "auth", "token": SENDER, "id": "1"}))
            assert (await receive(connection))["error"] is None
            left = {ADMIN: "read control send", SENDER: "send"}
            del left[removed]
            text = "\n".join(f"{token} {rights}" for token, rights in left.items())
            server.gate.tokens = TokenSet(parse_tokens(text, Path("tokens")))
            await connection.wait_closed()
            assert connection.close_code == 4403

    run(scenario)


def test_a_route_reads_a_body_of_any_size_up_to_its_limit(server: Server) -> None:
    """A larger one is refused before it is received, and one without a length too."""
    status, _, body = request(server, "POST", "/count", b"x" * MAX_BODY, **bearer(ADMIN))
    assert (status, body) == (200, str(MAX_BODY).encode())
    assert request(server, "POST", "/count", b"", **bearer(ADMIN))[2] == b"0"
    for headers, expected in (
        (f"Content-Length: {MAX_BODY + 1}", b" 413 "),
        ("Transfer-Encoding: chunked", b" 411 "),
        ("Content-Length: 5\r\nContent-Length: 6", b" 411 "),
        ("Content-Length: -5", b" 411 "),
    ):
        assert expected in exchange(server, f"{headers}\r\nAuthorization: Bearer {ADMIN}")
    assert b" 401 " in exchange(server, "Content-Length: 5")
    assert b" 403 " in exchange(server, f"Content-Length: 5\r\nAuthorization: Bearer {GUARD}")


def exchange(server: Server, headers: str) -> bytes:
    """Post a head without its body and return the status line."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as raw:
        raw.sendall(f"POST /count HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n".encode())
        return raw.recv(65536).partition(b"\r\n")[0]


def test_a_client_that_waits_for_100_continue_gets_it(server: Server) -> None:
    """Only if its request is accepted; curl would wait a second otherwise."""
    head = "POST /count HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as raw:
        raw.sendall(f"{head}Authorization: Bearer {ADMIN}\r\n\r\n".encode())
        assert raw.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"hello")
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 OK")
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as raw:
        raw.sendall(f"{head}\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 401")


def test_a_client_that_leaves_during_its_body_leaves_nothing_behind() -> None:
    """The handler ends, nothing is logged as a bug."""
    ended = asyncio.Event()

    async def handle(request: HttpRequest) -> HttpResponse:
        try:
            return await count(request)
        finally:
            ended.set()

    async def scenario() -> None:
        route = Route(path="/count", handle=handle, methods=("POST",), right="send", max_body_bytes=MAX_BODY)
        async with serve(make_broadcaster(), port=0, routes=[route]) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /count HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhello")
            await writer.drain()
            writer.close()
            await ended.wait()
            status = await asyncio.to_thread(request, server, "POST", "/count", b"hello")
            assert status[2] == b"5"

    run(scenario)


def test_the_handler_of_a_route_requires_rights_and_may_fail(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing right is 403, a bug 500 with one traceback in the log; the server continues."""
    assert request(server, "GET", "/show/a%20b", **bearer(GUARD))[2] == b"GET /show/a%20b"
    status, _, body = request(server, "GET", "/show/x?stream=yard", **bearer(GUARD))
    assert (status, body.decode().strip()) == (403, str(RightMissing("read", "yard")))
    assert request(server, "DELETE", "/show/x", **bearer(ADMIN))[0] == 405
    caplog.clear()
    assert request(server, "GET", "/show/x?stream=bug", **bearer(ADMIN))[0] == 500
    assert [record.message for record in caplog.records] == ["internal error in the handler of GET /show/"]
