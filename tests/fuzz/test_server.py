"""Arbitrary bytes to the real server, as HTTP and after the handshake of a WebSocket."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import HeartbeatMessage
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.metrics import Metrics
from runtime.serving.server import Server
from tests.support.aio import TIMEOUT_S
from tests.support.fuzzing import examples, logged_errors, mutations
from tests.support.wire import make_broadcaster

QUIET_S = 0.05  # an incomplete request is waited for
PATHS = [
    b"/",
    b"/ws",
    b"/overlay",
    b"/healthz",
    b"/metrics",
    b"/asyncapi.yaml",
    b"/index.js",
    b"/../etc/passwd",
]
HEADERS = [
    b"Host: 127.0.0.1",
    b"Host: evil.example",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Key: !",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99",
    b"Sec-WebSocket-Protocol: a, b",
    b"Origin: http://127.0.0.1",
    b"Origin: null",
    b"Origin: \xff\xfe",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Accept-Encoding: gzip",
    b"Range: bytes=5-1",
    b"X: " + b"x" * 9000,
]
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return one or more requests, of which each part may be wrong."""
    sent = b""
    for _ in range(draw(st.integers(1, 3))):
        method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PRI", b"get", b"G\x00T"]))
        path = draw(st.sampled_from(PATHS)) + draw(
            st.sampled_from([b"", b"", b"?a=b", b"/..", b"%00", b"\xff"])
        )
        version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/", b""]))
        headers = draw(st.lists(st.sampled_from(HEADERS), max_size=8))
        end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
        sent += end.join([b" ".join([method, path, version]), *headers, b"", draw(st.binary(max_size=20))])
    return sent


MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["auth", "request_previews", "hello", 5, None])},
    optional={
        "id": st.one_of(st.text(max_size=80), st.integers()),
        "token": st.one_of(st.text(max_size=20), st.none(), st.just("x" * 600)),
        "stream": st.one_of(st.none(), st.sampled_from(["cam", "", "\n"]), st.integers()),
        "width": st.sampled_from([0, 1, 320, -1, 10**30, 1.5, "320"]),
        "rate_hz": st.sampled_from([4, 0, -1, 1e300, "4"]),
    },
).map(lambda message: json.dumps(message).encode())


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Return WebSocket frames of any opcode, flags, length and mask, with the stated length or less."""
    sent = b""
    for _ in range(draw(st.integers(1, 6))):
        first = draw(
            st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x8F, 0xC1, 0xF1])
        )
        payload = draw(st.one_of(st.binary(max_size=140), MESSAGES, st.just(b"\x03\xe8")))
        stated = draw(st.sampled_from([len(payload)] * 6 + [0, 125, 126, 2**16, 2**31, 2**63 - 1, 2**64 - 1]))
        masked = draw(st.sampled_from([0x80, 0x80, 0x80, 0x00]))
        if stated < 126:
            sent += struct.pack(">BB", first, masked | stated)
        elif stated < 2**16:
            sent += struct.pack(">BBH", first, masked | 126, stated)
        else:
            sent += struct.pack(">BBQ", first, masked | 127, stated)
        sent += (bytes(4) if masked else b"") + payload
    return sent


@pytest.fixture(scope="module")
def broadcaster() -> Broadcaster:
    """Broadcaster of the server."""
    return make_broadcaster()


@pytest.fixture(scope="module")
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """Running server."""
    with serve_in_thread(broadcaster, port=0, metrics=Metrics()) as running:
        yield running


def exchange(server: Server, data: bytes, *, quiet_s: float = TIMEOUT_S) -> bytes:
    """Send data; return what comes back. After a time without any, the sending side is closed."""
    received = b""
    # The server may close while data is still being sent.
    with (
        socket.create_connection((server.host, server.port)) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.settimeout(quiet_s)
        client.sendall(data)
        while True:
            try:
                part = client.recv(65536)
            except TimeoutError:
                client.settimeout(TIMEOUT_S)
                client.shutdown(socket.SHUT_WR)
                continue
            if not part:
                break
            received += part
    return received


def check(server: Server, broadcaster: Broadcaster, data: bytes) -> bytes:
    """Send data; check that the server closes, logs no error, and still answers others."""
    with logged_errors() as errors:
        received = exchange(server, data, quiet_s=QUIET_S)
    assert errors == []
    broadcaster.publish(HeartbeatMessage(uptime_s=0.0, streams=()))  # without one, it is not healthy
    health = exchange(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert health.startswith(b"HTTP/1.1 200 "), health
    return received


@pytest.mark.fuzz
@examples(50, 20_000)
@given(st.one_of(requests(), mutations(HANDSHAKE), st.binary(max_size=300)))
def test_http(server: Server, broadcaster: Broadcaster, data: bytes) -> None:
    """Whatever is sent, there is a response or none, and nothing else happens."""
    received = check(server, broadcaster, data)
    assert not received or received.startswith(b"HTTP/1.1 ")
    assert b"root:" not in received


@pytest.mark.fuzz
@examples(50, 20_000)
@given(st.one_of(frames(), st.binary(max_size=300)))
def test_websocket(server: Server, broadcaster: Broadcaster, data: bytes) -> None:
    """Whatever is sent after the handshake, the connection ends and others are served."""
    received = check(server, broadcaster, HANDSHAKE + data)
    assert received == b"" or received.startswith(b"HTTP/1.1 101 ")
