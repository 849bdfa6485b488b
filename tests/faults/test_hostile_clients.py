"""Faults: clients that send data although they should only listen. Other clients are not affected."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tracemalloc
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import StreamMessage
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.metrics import Metrics
from runtime.serving.server import Server
from tests.support.aio import TIMEOUT_S, run, until
from tests.support.wire import make_broadcaster

HOST = b"Host: 127.0.0.1\r\n"
UPGRADE = (
    HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def broadcaster() -> Broadcaster:
    """Broadcaster of the server."""
    return make_broadcaster()


@pytest.fixture
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """Running server."""
    with serve_in_thread(broadcaster, port=0, metrics=Metrics()) as running:
        yield running


def exchange(server: Server, request: bytes) -> bytes:
    """Send a request and return the status line of the response."""
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as raw:
        raw.sendall(request)
        response = b""
        while part := raw.recv(65536):
            response += part
    return response.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", b" 405 ", id="POST with a body"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", b" 200 ", id="GET with a body"
        ),
        pytest.param(
            b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b" 405 ",
            id="chunked body",
        ),
        pytest.param(
            b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
            b" 405 ",
            id="body of 3 MB",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            b" 405 ",
            id="announced body that does not come",
        ),
        pytest.param(
            b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nhello", b" 200 ", id="data after the request"
        ),
        pytest.param(
            (b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") * 9, b" 200 ", id="several requests at once"
        ),
        pytest.param(
            b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 5\r\n\r\nhello",
            b" 400 ",
            id="handshake with a body",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n", b" 400 ", id="two Host headers"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + HOST + b"\r\n", b" 400 ", id="two Hosts, ours last"
        ),
        pytest.param(
            b"GET /ws HTTP/1.1\r\n"
            + UPGRADE
            + b"Origin: http://evil.example\r\nOrigin: http://127.0.0.1\r\n\r\n",
            b" 400 ",
            id="two Origin headers",
        ),
        pytest.param(b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", b" 414 ", id="long path"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 500 + b"\r\n", b" 431 ", id="many headers"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 200_000 + b"\r\n\r\n", b" 431 ", id="long header"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A B: c\r\n\r\n", b"", id="malformed header"),
        pytest.param(b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", b"", id="bytes that are no text"),
    ],
)
def test_requests_end_cleanly(
    request_bytes: bytes, status: bytes, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request gets its answer or a closed connection; the log has no traceback."""
    assert status in exchange(server, request_bytes)
    assert b" 200 " in exchange(server, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
    assert [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Encode a frame of a client."""
    return Frame(opcode, data, fin).serialize(mask=True)


FLOODS = [
    pytest.param(b"", frame(Opcode.TEXT), id="empty messages"),
    pytest.param(b"", frame(Opcode.PING), id="empty pings"),
    pytest.param(b"", frame(Opcode.PING, b"x" * 125), id="long pings"),
    pytest.param(b"", frame(Opcode.PONG, b"x" * 125), id="pongs that answer no ping"),
    pytest.param(frame(Opcode.TEXT, fin=False), frame(Opcode.CONT, fin=False), id="endless empty fragments"),
]


@pytest.mark.parametrize(("start", "part"), FLOODS)
@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
def test_a_flood_closes_its_connection(
    start: bytes, part: bytes, reads: bool, server: Server, broadcaster: Broadcaster
) -> None:
    """The connection is closed after a burst, in bounded memory; another client misses nothing."""
    flood = start + part * (8_000_000 // len(part))

    async def scenario() -> None:
        async with connect(server.urls.websocket, proxy=None) as other:
            assert [await kind_of(other) for _ in range(2)] == ["hello", "snapshot"]
            await asyncio.to_thread(send_flood, server, flood, reads=reads)
            await until(lambda: broadcaster.clients == 1)
            broadcaster.publish(StreamMessage(stream="cam", state="live"))
            assert await kind_of(other) == "stream"

    tracemalloc.start()
    run(scenario)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


async def kind_of(connection: ClientConnection) -> str:
    """Receive a message and return its type."""
    return str(await connection.recv()).partition('"type":"')[2].partition('"')[0]


def send_flood(server: Server, flood: bytes, *, reads: bool) -> None:
    """Connect and send; the server is expected to close the connection before everything is sent."""
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        assert b" 101 " in raw.recv(4096)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            raw.sendall(flood)
        if reads:
            with contextlib.suppress(OSError):
                while raw.recv(65536):
                    pass
        # Reset, so that nothing of it remains in the kernel.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_flooding_client_gets_a_close_code(server: Server) -> None:
    """A client that sends a little too much gets close code 1008."""

    async def scenario() -> None:
        async with connect(server.urls.websocket, proxy=None) as connection:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(100):
                    await connection.send("x" * 1000)
            await connection.wait_closed()
            assert connection.close_code == 1008

    run(scenario)
