"""Server: real clients, among them slow, misbehaving and unauthorised ones."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.errors import AddressUnusable, PortBusy
from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamMessage
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.metrics import Metrics
from runtime.serving.server import Server, Urls, serve
from tests.support.aio import TIMEOUT_S, run, until
from tests.support.wire import make_broadcaster, validate, verdict


@asynccontextmanager
async def client(server: Server, **options: Any) -> AsyncIterator[ClientConnection]:
    """Connect a well-behaved client."""
    async with connect(server.urls.websocket, proxy=None, **options) as connection:
        yield connection


async def receive(connection: ClientConnection) -> dict[str, Any]:
    """Receive one message, which must fit asyncapi.yaml."""
    message: dict[str, Any] = json.loads(await connection.recv())
    validate(message)
    return message


async def listen(connection: ClientConnection) -> None:
    """Receive messages until the server closes the connection."""
    async for _ in connection:
        pass


def exchange(server: Server, request: bytes) -> bytes:
    """Send raw bytes and return all that the server sends until it closes the connection."""
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as raw:
        raw.sendall(request)
        response = b""
        while part := raw.recv(65536):
            response += part
        return response


@pytest.fixture(scope="module")
def broadcaster() -> Broadcaster:
    """Broadcaster of the shared server."""
    return make_broadcaster()


@pytest.fixture(scope="module")
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """Server for the tests that neither stop nor reconfigure it."""
    with serve_in_thread(broadcaster, port=0, metrics=Metrics()) as running:
        yield running


def test_a_client_receives_hello_snapshot_and_every_message() -> None:
    """Numbers continue without a gap, and every message fits asyncapi.yaml."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        broadcaster.publish(verdict())
        async with serve(broadcaster, port=0) as server, client(server) as connection:
            assert connection.protocol.extensions == []
            hello = await receive(connection)
            snapshot = await receive(connection)
            assert (hello["type"], hello["seq"]) == ("hello", 2)
            assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 2)
            assert [message["seq"] for message in snapshot["verdicts"]] == [2]
            messages: list[BroadcastMessage] = [
                verdict(),
                verdict(state="stale", latency_ms=None),
                HeartbeatMessage(uptime_s=1),
            ]
            for published in messages:
                broadcaster.publish(published)
            received = [await receive(connection) for _ in messages]
            assert [message["seq"] for message in received] == [3, 4, 5]
            assert [message["type"] for message in received] == ["verdict", "verdict", "heartbeat"]

    run(scenario)


def test_threads_publish_to_many_clients() -> None:
    """Messages of several threads reach every client in the same order."""

    async def scenario() -> None:
        broadcaster = make_broadcaster(capacity=1000)
        async with serve(broadcaster, port=0) as server:
            connections = [await connect(server.urls.websocket, proxy=None) for _ in range(5)]
            for connection in connections:
                assert [(await receive(connection))["type"] for _ in range(2)] == ["hello", "snapshot"]

            def publish() -> None:
                for _ in range(50):
                    broadcaster.publish(verdict())

            threads = [threading.Thread(target=publish) for _ in range(3)]
            for thread in threads:
                thread.start()
            for connection in connections:
                seqs = [(await receive(connection))["seq"] for _ in range(150)]
                assert seqs == list(range(1, 151))
            for thread in threads:
                thread.join()
            for connection in connections:
                await connection.close()

    run(scenario)


def test_a_client_that_stops_reading_delays_no_other() -> None:
    """The other client gets every message; the slow one continues with the newest."""

    async def scenario() -> None:
        broadcaster = make_broadcaster(capacity=8)
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        async with serve(broadcaster, port=0) as server:
            # A small receive buffer is full sooner.
            small_socket = socket.socket()
            small_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small_socket.connect((server.host, server.port))
            async with (
                client(server) as fast,
                connect(
                    server.urls.websocket, sock=small_socket, max_queue=1, ping_interval=None, proxy=None
                ) as slow,
            ):
                await until(lambda: broadcaster.clients == 2)
                for _ in range(2):
                    await receive(fast)
                seqs = []
                while broadcaster.lost < 100:
                    broadcaster.publish(verdict())
                    seqs.append((await receive(fast))["seq"])
                last = broadcaster.publish(StreamMessage(stream="cam", state="offline"))
                assert (await receive(fast))["seq"] == last
                assert seqs == list(range(2, last))

                received = [await receive(slow)]
                while received[-1]["seq"] < last or received[-1]["type"] != "stream":
                    received.append(await receive(slow))
                numbers = [message["seq"] for message in received[1:]]
                assert numbers == sorted(numbers)
                lost = last - 1 - len([message for message in received if message["type"] == "verdict"])
                assert lost > 50
                assert received[-1]["state"] == "offline"

    run(scenario)


def test_a_client_that_accepts_no_data_is_disconnected() -> None:
    """A client that died without closing its connection does not stay for ever."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0, send_timeout_s=0.2) as server:
            small_socket = socket.socket()
            small_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small_socket.connect((server.host, server.port))
            connection = await connect(
                server.urls.websocket, sock=small_socket, max_queue=1, ping_interval=None, proxy=None
            )
            await until(lambda: broadcaster.clients == 1)
            while broadcaster.clients:
                broadcaster.publish(verdict())
                await asyncio.sleep(0)
            connection.transport.abort()

    run(scenario)


def test_messages_from_clients_are_ignored() -> None:
    """Short messages are ignored; a message that is too long closes the connection."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with (
            serve(broadcaster, port=0) as server,
            client(server) as talkative,
            client(server) as flooding,
        ):
            for connection in (talkative, flooding):
                for _ in range(2):
                    await receive(connection)
            for _ in range(100):
                await talkative.send("hello?")
            await flooding.send(b"x" * 5000)
            await flooding.wait_closed()
            assert flooding.close_code == 1009
            broadcaster.publish(verdict())
            assert (await receive(talkative))["seq"] == 1
            await until(lambda: broadcaster.clients == 1)

    run(scenario)


def test_the_server_stops_quickly() -> None:
    """Clients get close code 1001; neither idle connections nor stuck clients delay the end."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        loop = asyncio.get_running_loop()
        idle = socket.socket()
        small_socket = socket.socket()
        small_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with closing(idle), closing(small_socket):
            async with serve(broadcaster, port=0, send_timeout_s=1000) as server:
                idle.connect((server.host, server.port))
                small_socket.connect((server.host, server.port))
                reading = await connect(server.urls.websocket, proxy=None)
                stuck = await connect(
                    server.urls.websocket, sock=small_socket, max_queue=1, ping_interval=None, proxy=None
                )
                await until(lambda: broadcaster.clients == 2)
                while broadcaster.lost < 100:
                    broadcaster.publish(verdict())
                    await asyncio.sleep(0)
                stopped_at = loop.time()
                reader_task = asyncio.create_task(listen(reading))
            # Much less than the timeouts of 10 and 20 seconds that would apply otherwise.
            assert loop.time() - stopped_at < 4
            await reader_task
            assert reading.close_code == 1001
            assert broadcaster.clients == 0
            stuck.transport.abort()
            broadcaster.publish(verdict())

    run(scenario)


def test_pages_of_other_origins_are_refused() -> None:
    """A handshake from another origin or under a rebound name is refused."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0, allow_origin=["https://desk.example"]) as server:
            own = f"http://localhost:{server.port}"
            for origin in (own, "https://desk.example", None):
                async with client(server, origin=origin) as connection:
                    assert (await receive(connection))["type"] == "hello"
            for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(server.urls.websocket, origin=Origin(origin), proxy=None)
                assert refused.value.response.status_code == 403
                assert b"--allow-origin" in refused.value.response.body
            with pytest.raises(InvalidStatus) as misdirected:
                await connect(
                    f"ws://evil.example:{server.port}/ws", host="127.0.0.1", port=server.port, proxy=None
                )
            assert misdirected.value.response.status_code == 421

    run(scenario)


def test_pages_are_served_over_http(server: Server, broadcaster: Broadcaster) -> None:
    """Responses have security headers; HEAD returns the headers only."""
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    for path, content_type, part in (
        ("/", "text/html; charset=utf-8", b"</html>"),
        ("/overlay?stream=cam", "text/html; charset=utf-8", b"</html>"),
        ("/overlay.js", "text/javascript; charset=utf-8", b"customElements.define"),
        ("/asyncapi.yaml", "application/yaml; charset=utf-8", b"asyncapi: 3.0.0"),
        ("/healthz", "application/json", b'"cam": "live"'),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", b"unmask_stream_state"),
    ):
        for method in ("GET", "HEAD"):
            with closing(
                http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_S)
            ) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                body = response.read()
            assert response.status == 200, path
            assert response.headers["Content-Type"] == content_type
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert "websockets" not in response.headers["Server"]
            if method == "GET":
                assert part in body
                assert int(response.headers["Content-Length"]) == len(body)
            else:
                assert body == b""
                assert int(response.headers["Content-Length"]) > 0


def test_unknown_paths_and_methods_are_refused(server: Server) -> None:
    """A wrong path is 404, a wrong method 405, a connection request to the WebSocket 426."""
    name = b"Host: 127.0.0.1\r\n"
    assert b" 404 " in exchange(server, b"GET /nothing HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 426 " in exchange(server, b"GET /ws HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 405 " in exchange(server, b"DELETE / HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 200 " in exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n").partition(b"\r\n")[0]


def test_other_protocols_on_the_port_log_nothing(
    server: Server, broadcaster: Broadcaster, caplog: pytest.LogCaptureFixture
) -> None:
    """A port scanner, a TLS client or an RTSP client causes no warning and no failure."""
    for data in (b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"):
        with socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as raw:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert b" 200 " in exchange(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n")[0]
    assert broadcaster.clients == 0
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


def test_a_taken_port_is_an_error(server: Server) -> None:
    """The error names the port and the option to change it."""
    with (
        pytest.raises(PortBusy, match=f"port {server.port} on 127.0.0.1 is in use; .* --port"),
        serve_in_thread(make_broadcaster(), port=server.port),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "port"),
    [("192.0.2.1", 0), ("no-such-host.invalid", 0), ("a..b", 0), ("a..b", 8765), ("127.0.0.1", 70000)],
)
def test_an_unusable_address_is_an_error(host: str, port: int) -> None:
    """A foreign address, an unknown host name and an impossible port are refused with advice."""
    with (
        pytest.raises(AddressUnusable, match=r"cannot listen on .*; give an address of this machine"),
        serve_in_thread(make_broadcaster(), host=host, port=port),
    ):
        pass


def test_listening_on_all_interfaces_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is one warning, and the links work on this machine."""
    with serve_in_thread(make_broadcaster(), host="0.0.0.0", port=0) as server:
        assert server.urls.dashboard == f"http://127.0.0.1:{server.port}/"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"anyone who reaches this machine on port {server.port} can watch the verdicts"]


@pytest.mark.parametrize("host", ["", "::"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_all_interfaces_means_ipv4_and_ipv6(host: str, address: str) -> None:
    """`--host ::` accepts IPv4 clients too, on the same port."""
    with (
        serve_in_thread(make_broadcaster(), host=host, port=0) as server,
        closing(http.client.HTTPConnection(address, server.port, timeout=TIMEOUT_S)) as connection,
    ):
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200


def test_any_free_port_is_the_same_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name such as `localhost` may have several addresses; the printed port is right for each."""
    resolve = socket.getaddrinfo

    def two_addresses(host: str, *arguments: Any, **options: Any) -> list[Any]:
        hosts = ["127.0.0.1", "127.0.0.2"] if host == "two.test" else [host]
        return [entry for name in hosts for entry in resolve(name, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with serve_in_thread(make_broadcaster(), host="two.test", port=0) as server:
        for address in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((address, server.port), timeout=TIMEOUT_S).close()


@pytest.mark.parametrize("steps", range(5))
def test_a_connection_during_the_shutdown_is_closed(steps: int) -> None:
    """Wherever the shutdown interrupts its acceptance, no socket is left open, which would be a warning."""

    async def scenario() -> None:
        async with serve(make_broadcaster(), port=0) as server:
            with socket.create_connection((server.host, server.port)):
                for _ in range(steps):
                    await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(scenario)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_a_malformed_origin_is_an_error_at_the_start() -> None:
    """A mistake in --allow-origin does not start a server that admits no page."""
    with (
        pytest.raises(ValueError, match="is not an origin"),
        serve_in_thread(make_broadcaster(), allow_origin=["x"]),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "authority"),
    [("127.0.0.1", "127.0.0.1:1"), ("", "127.0.0.1:1"), ("::", "[::1]:1"), ("fe80::1", "[fe80::1]:1")],
)
def test_links_have_an_address_that_a_browser_can_open(host: str, authority: str) -> None:
    """Unspecified addresses are replaced by the loopback address."""
    urls = Urls.of(host, 1)
    assert urls == Urls(
        dashboard=f"http://{authority}/",
        overlay=f"http://{authority}/overlay",
        websocket=f"ws://{authority}/ws",
    )
