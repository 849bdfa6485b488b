"""The server speaks to real clients: good ones, slow ones, rude ones and foreign ones."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from tests.support.wire import make_broadcaster, validate, verdict

# Far more than any of this takes, on any machine; a test that needs it has failed.
PATIENCE_S = 30


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test."""

    async def told() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story()

    asyncio.run(told())


@asynccontextmanager
async def client(server: Server, **options: Any) -> AsyncIterator[ClientConnection]:
    """Connect a well-behaved client."""
    async with connect(server.urls.websocket, proxy=None, **options) as connection:
        yield connection


async def receive(connection: ClientConnection) -> dict[str, Any]:
    """Receive one message, which must fit the description."""
    message: dict[str, Any] = json.loads(await connection.recv())
    validate(message)
    return message


async def listen(connection: ClientConnection) -> None:
    """Receive whatever comes until the server says goodbye."""
    async for _ in connection:
        pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere."""
    while not condition():
        await asyncio.sleep(0.005)


def talk(server: Server, request: bytes) -> bytes:
    """Send raw bytes, and receive all that comes back until the server hangs up."""
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(request)
        answer = b""
        while part := raw.recv(65536):
            answer += part
        return answer


@pytest.fixture
def broadcaster() -> Broadcaster:
    """A hub that nobody has said anything to."""
    return make_broadcaster()


@pytest.fixture
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """A running server on a free port, in a thread of its own."""
    with serve_in_thread(broadcaster, port=0, metrics=Metrics()) as running:
        yield running


def test_a_client_is_greeted_and_then_told_everything() -> None:
    """Hello, the snapshot, and every message from there on without a gap, all as described."""

    async def story() -> None:
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

    run(story)


def test_threads_publish_to_many_clients() -> None:
    """What other threads say reaches every client, in the same order."""

    async def story() -> None:
        broadcaster = make_broadcaster(capacity=1000)
        async with serve(broadcaster, port=0) as server:
            connections = [await connect(server.urls.websocket, proxy=None) for _ in range(5)]
            for connection in connections:
                assert [(await receive(connection))["type"] for _ in range(2)] == ["hello", "snapshot"]

            def say() -> None:
                for _ in range(50):
                    broadcaster.publish(verdict())

            threads = [threading.Thread(target=say) for _ in range(3)]
            for thread in threads:
                thread.start()
            for connection in connections:
                seqs = [(await receive(connection))["seq"] for _ in range(150)]
                assert seqs == list(range(1, 151))
            for thread in threads:
                thread.join()
            for connection in connections:
                await connection.close()

    run(story)


def test_a_client_that_never_reads_slows_nobody() -> None:
    """One client stops reading: another still gets every message, and the slow one wakes to the newest."""

    async def story() -> None:
        broadcaster = make_broadcaster(capacity=8)
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        async with serve(broadcaster, port=0) as server:
            # A small receive buffer, so that the test need not fill megabytes of it.
            sleeper = socket.socket()
            sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sleeper.connect((server.host, server.port))
            async with (
                client(server) as quick,
                connect(
                    server.urls.websocket, sock=sleeper, max_queue=1, ping_interval=None, proxy=None
                ) as slow,
            ):
                await until(lambda: broadcaster.clients == 2)
                for _ in range(2):
                    await receive(quick)
                seqs = []
                while broadcaster.lost < 100:
                    broadcaster.publish(verdict())
                    seqs.append((await receive(quick))["seq"])
                last = broadcaster.publish(StreamMessage(stream="cam", state="offline"))
                assert (await receive(quick))["seq"] == last
                assert seqs == list(range(2, last))

                received = [await receive(slow)]
                while received[-1]["seq"] < last or received[-1]["type"] != "stream":
                    received.append(await receive(slow))
                numbers = [message["seq"] for message in received[1:]]
                assert numbers == sorted(numbers)
                lost = last - 1 - len([message for message in received if message["type"] == "verdict"])
                assert lost > 50
                assert received[-1]["state"] == "offline"

    run(story)


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    """A client that has died without a word does not stay for ever."""

    async def story() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0, send_timeout_s=0.2) as server:
            sleeper = socket.socket()
            sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sleeper.connect((server.host, server.port))
            connection = await connect(
                server.urls.websocket, sock=sleeper, max_queue=1, ping_interval=None, proxy=None
            )
            await until(lambda: broadcaster.clients == 1)
            while broadcaster.clients:
                broadcaster.publish(verdict())
                await asyncio.sleep(0)
            connection.transport.abort()

    run(story)


def test_what_a_client_says_is_of_no_interest() -> None:
    """Chatter is ignored; a flood ends the connection that it comes from."""

    async def story() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server, client(server) as chatty, client(server) as rude:
            for connection in (chatty, rude):
                for _ in range(2):
                    await receive(connection)
            for _ in range(100):
                await chatty.send("hello?")
            await rude.send(b"x" * 2000)
            await rude.wait_closed()
            assert rude.close_code == 1009
            broadcaster.publish(verdict())
            assert (await receive(chatty))["seq"] == 1
            await until(lambda: broadcaster.clients == 1)

    run(story)


def test_the_end_is_quick_and_polite() -> None:
    """Well-behaved clients hear 1001; neither silent connections nor stuck clients hold up the end."""

    async def story() -> None:
        broadcaster = make_broadcaster()
        loop = asyncio.get_running_loop()
        idle = socket.socket()
        sleeper = socket.socket()
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with closing(idle), closing(sleeper):
            async with serve(broadcaster, port=0, send_timeout_s=1000) as server:
                idle.connect((server.host, server.port))
                sleeper.connect((server.host, server.port))
                polite = await connect(server.urls.websocket, proxy=None)
                stuck = await connect(
                    server.urls.websocket, sock=sleeper, max_queue=1, ping_interval=None, proxy=None
                )
                await until(lambda: broadcaster.clients == 2)
                while broadcaster.lost < 100:
                    broadcaster.publish(verdict())
                    await asyncio.sleep(0)
                leaving = loop.time()
                listening = asyncio.create_task(listen(polite))
            # Generous for a slow day; without care it would be the ten or twenty seconds of some timeout.
            assert loop.time() - leaving < 4
            await listening
            assert polite.close_code == 1001
            assert broadcaster.clients == 0
            stuck.transport.abort()
            broadcaster.publish(verdict())

    run(story)


def test_foreign_pages_are_turned_away() -> None:
    """A handshake from another page's origin, or under a rebound name, is refused before it opens."""

    async def story() -> None:
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

    run(story)


def test_pages_come_over_http(server: Server, broadcaster: Broadcaster) -> None:
    """Browsers and scrapers get whole pages with headers that keep them safe; HEAD gets the headers only."""
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
            with closing(http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)) as plain:
                plain.request(method, path)
                answer = plain.getresponse()
                body = answer.read()
            assert answer.status == 200, path
            assert answer.headers["Content-Type"] == content_type
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "websockets" not in answer.headers["Server"]
            if method == "GET":
                assert part in body
                assert int(answer.headers["Content-Length"]) == len(body)
            else:
                assert body == b""
                assert int(answer.headers["Content-Length"]) > 0


def test_unknown_paths_and_methods(server: Server) -> None:
    """A wrong path is 404, a wrong method 405, and a plain request to the WebSocket 426."""
    name = b"Host: 127.0.0.1\r\n"
    assert b" 404 " in talk(server, b"GET /nothing HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 426 " in talk(server, b"GET /ws HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 405 " in talk(server, b"DELETE / HTTP/1.1\r\n" + name + b"\r\n").partition(b"\r\n")[0]
    assert b" 200 " in talk(server, b"GET /healthz HTTP/1.0\r\n\r\n").partition(b"\r\n")[0]


def test_noise_on_the_port_is_survived_in_silence(
    server: Server, broadcaster: Broadcaster, caplog: pytest.LogCaptureFixture
) -> None:
    """A port scanner, a TLS client or an RTSP camera on the wrong port leaves no trace."""
    for noise in (b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"):
        with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert b" 200 " in talk(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n")[0]
    assert broadcaster.clients == 0
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


def test_a_taken_port_is_named(server: Server) -> None:
    """A second program on the same port hears which port it is and what to do."""
    with (
        pytest.raises(PortBusy, match=f"port {server.port} on 127.0.0.1 is taken; .* --port"),
        serve_in_thread(make_broadcaster(), port=server.port),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("no-such-host.invalid", 0), ("127.0.0.1", 70000)]
)
def test_an_impossible_address_is_named(host: str, port: int) -> None:
    """An address that is not this machine's, a name that leads nowhere and a port that is none are told."""
    with (
        pytest.raises(AddressUnusable, match=r"cannot listen on .*; give an address of this machine"),
        serve_in_thread(make_broadcaster(), host=host, port=port),
    ):
        pass


def test_listening_to_everyone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever opens the port to the network is told so, once, and gets links that work here."""
    with serve_in_thread(make_broadcaster(), host="0.0.0.0", port=0) as server:
        assert server.urls.dashboard == f"http://127.0.0.1:{server.port}/"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"anyone who reaches this machine on port {server.port} can watch the verdicts"]


def test_a_mistaken_origin_is_told_before_listening() -> None:
    """--allow-origin with something that is no origin does not start a server that lets nobody in."""
    with (
        pytest.raises(ValueError, match="is not an origin"),
        serve_in_thread(make_broadcaster(), allow_origin=["x"]),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "authority"),
    [("127.0.0.1", "127.0.0.1:1"), ("", "127.0.0.1:1"), ("::", "[::1]:1"), ("fe80::1", "[fe80::1]:1")],
)
def test_links_can_be_opened(host: str, authority: str) -> None:
    """The links name an address that a browser can open."""
    urls = Urls.of(host, 1)
    assert urls == Urls(
        dashboard=f"http://{authority}/",
        overlay=f"http://{authority}/overlay",
        websocket=f"ws://{authority}/ws",
    )
