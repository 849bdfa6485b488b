"""Client: reconnection after every kind of interruption, and an error where that cannot help."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.client import (
    AccessRefused,
    AddressInvalid,
    NotUnmask,
    ProtocolMismatch,
    ServerUnreachable,
    TokenRefused,
    Watch,
    WatchError,
    watch,
    websocket_url,
)
from runtime.messages import HeartbeatMessage, HelloMessage, SnapshotMessage, StreamMessage, encode
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Security, serve
from tests.support.aio import TIMEOUT_S, run, until
from tests.support.wire import HELLO, make_broadcaster, validate, verdict


async def receive(feed: Watch, count: int) -> list[dict[str, Any]]:
    """Receive a number of messages."""
    return [await anext(feed) for _ in range(count)]


@asynccontextmanager
async def scripted(*scripts: list[str]) -> AsyncIterator[str]:
    """Serve one client after the other: send the lines of its script and close the connection."""
    remaining = list(scripts)

    async def handle(connection: ServerConnection) -> None:
        for line in remaining.pop(0) if remaining else []:
            await connection.send(line)

    async with serve_websockets(handle, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def opening(seq: int, *, session: str = "a run") -> list[str]:
    """Return hello and snapshot after the broadcast message number `seq`."""
    hello = HelloMessage(seq=seq, version="1", session=session)
    return [encode(message).decode() for message in (hello, SnapshotMessage(seq=seq))]


def verdicts(*seqs: int) -> list[str]:
    """Return verdicts with these numbers."""
    return [encode(verdict().stamp(seq, 0.0)).decode() for seq in seqs]


def test_messages_arrive_in_order() -> None:
    """The loop receives hello, snapshot and every message as valid dictionaries."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        async with serve(broadcaster, port=0) as server, watch(server.urls.websocket) as feed:
            first, second = await receive(feed, 2)
            assert (first["type"], second["type"]) == ("hello", "snapshot")
            assert feed.hello is first
            assert feed.connected
            for published in (verdict(), HeartbeatMessage(uptime_s=1)):
                broadcaster.publish(published)
            seen = [first, second, *await receive(feed, 2)]
            for message in seen:
                validate(message)
            assert [message["seq"] for message in seen] == [1, 1, 2, 3]
            assert feed.lost == 0

    run(scenario)


def test_leaving_the_loop_disconnects() -> None:
    """After a `break` the connection is closed without further calls."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server:
            async for _ in watch(f"127.0.0.1:{server.port}"):
                assert broadcaster.clients == 1
                break
            await until(lambda: not broadcaster.clients)

    run(scenario)


@pytest.mark.parametrize("form", ["ws://127.0.0.1:{}/ws", "http://localhost:{}/", "127.0.0.1:{}"])
def test_every_printed_address_works(form: str) -> None:
    """The links of dashboard and WebSocket and the plain address lead to the messages."""

    async def scenario() -> None:
        async with serve(make_broadcaster(), host="localhost", port=0) as server:
            url = form.format(server.port).replace("127.0.0.1", "localhost")
            async with watch(url) as feed:
                assert (await anext(feed))["type"] == "hello"

    run(scenario)


def test_a_lost_connection_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """Messages continue when the server is back; the outage is reported once."""

    async def scenario() -> None:
        reasons: list[str] = []
        async with serve(make_broadcaster(), port=0) as server:
            feed = watch(server.urls.websocket, on_disconnect=reasons.append)
            await receive(feed, 2)
            assert reasons == []
        returning = asyncio.create_task(receive(feed, 2))
        await until(lambda: bool(reasons))
        assert not feed.connected
        later = Broadcaster(HelloMessage(version="1", session="another run"))
        later.publish(StreamMessage(stream="cam", state="live"))
        async with serve(later, port=server.port):
            hello, _ = await returning
            assert hello["type"] == "hello"
            assert hello["session"] == "another run"
            assert feed.connected
            await feed.aclose()
        assert len(reasons) == 1
        assert feed.lost == 0

    caplog.set_level(logging.WARNING)
    run(scenario)
    # One warning for the whole time without a server, however many attempts were made.
    assert len([record for record in caplog.records if record.name == "runtime.client"]) == 1


def test_missed_messages_are_counted() -> None:
    """Gaps in `seq` are counted within a connection and across a reconnection to the same run."""

    async def scenario() -> None:
        scripts = (
            [*opening(10), *verdicts(11, 12, 15)],  # 13 and 14 are missing
            [*opening(20), *verdicts(21)],  # 16 to 20 went by while the connection was down
            [*opening(3, session="another run"), *verdicts(4, 6)],  # numbers start over; 5 is missing
        )
        async with scripted(*scripts) as url, watch(url) as feed:
            lost = []
            for script in scripts:
                await receive(feed, len(script))
                lost.append(feed.lost)
            assert lost == [2, 7, 8]

    run(scenario)


@pytest.mark.parametrize("faces", [1, 5])
def test_a_slow_program_receives_the_newest(monkeypatch: pytest.MonkeyPatch, faces: int) -> None:
    """Outdated messages are dropped and counted; what comes is current, in order and of known age."""
    monkeypatch.setattr("runtime.client.MAX_WAIT_S", 0.0)

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server, watch(server.urls.websocket) as feed:
            await receive(feed, 2)
            first = broadcaster.seq
            taken = []
            for _ in range(20):
                # What a program misses that takes one message while thirty of each face are sent.
                for _ in range(30):
                    for face in range(faces):
                        last = broadcaster.publish(verdict(face=face))
                    await asyncio.sleep(0)
                message = await anext(feed)
                taken.append(message)
                assert last - message["seq"] < 60 * faces
                assert 0.0 <= feed.age_s < TIMEOUT_S
            seqs = [message["seq"] for message in taken]
            assert seqs == sorted(seqs)
            assert {message["face"] for message in taken} == set(range(faces))
            broadcaster.publish(StreamMessage(stream="cam", state="offline"))
            while message["type"] != "stream":
                message = await anext(feed)
                taken.append(message)
            assert len(taken) + feed.lost == broadcaster.seq - first

    run(scenario)


def test_a_program_that_blocks_the_event_loop_receives_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages do not grow old in the socket while the program computes between two of them."""
    monkeypatch.setattr("runtime.client.MAX_WAIT_S", 0.0)
    broadcaster = make_broadcaster(capacity=4096)

    async def scenario(url: str) -> None:
        async with watch(url) as feed:
            await receive(feed, 2)
            for _ in range(5):
                for _ in range(100):
                    last = broadcaster.publish(verdict())
                time.sleep(0.2)  # the program computes
                assert last - (await anext(feed))["seq"] < 50
            assert feed.lost > 300

    with serve_in_thread(broadcaster, port=0) as server:
        run(lambda: scenario(server.urls.websocket))


def test_a_timeout_does_not_end_the_iteration() -> None:
    """`asyncio.timeout` and `wait_for` around the next message may expire any number of times."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server, watch(server.urls.websocket) as feed:
            await receive(feed, 2)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await anext(feed)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(feed), 0.01)
                broadcaster.publish(verdict())
                assert (await anext(feed))["seq"] == broadcaster.seq
            assert feed.connected
            assert feed.lost == 0

    run(scenario)


def test_closing_ends_the_iteration() -> None:
    """A caller that waits for a message, and every later one, gets the end of the iteration."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server:
            feed = watch(server.urls.websocket)
            await receive(feed, 2)
            waiting = asyncio.create_task(anext(feed, None))
            await asyncio.sleep(0)
            await feed.aclose()
            assert await waiting is None
            assert [message async for message in feed] == []
            await until(lambda: not broadcaster.clients)

    run(scenario)


@pytest.mark.parametrize(
    "changes", [{"protocol": None}, {"protocol": "2"}, {"session": None}, {"time": "now"}, {"seq": None}]
)
def test_a_malformed_hello_is_an_error(changes: dict[str, Any]) -> None:
    """A field of the hello that is missing or of another type is reported as such."""
    hello = {**json.loads(encode(HELLO)), **changes}
    hello = {name: value for name, value in hello.items() if value is not None}

    async def scenario() -> None:
        async with scripted([json.dumps(hello)]) as url:
            with pytest.raises((NotUnmask, ProtocolMismatch)):
                await anext(watch(url))

    run(scenario)


def test_a_silent_server_is_reconnected_to() -> None:
    """A connection without messages is given up although the network reports no error."""

    async def scenario() -> None:
        async with serve(make_broadcaster(), port=0) as server:
            reasons: list[str] = []
            async with watch(server.urls.websocket, silence_s=0.05, on_disconnect=reasons.append) as feed:
                assert [message["type"] for message in await receive(feed, 4)] == ["hello", "snapshot"] * 2
            assert reasons == ["no message for too long"]

    run(scenario)


def test_give_up_s_limits_the_attempts(caplog: pytest.LogCaptureFixture) -> None:
    """`give_up_s` turns an unreachable server into an error."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{reserved.getsockname()[1]}"

        async def scenario() -> None:
            with pytest.raises(
                ServerUnreachable, match="nothing listens there; is `unmask monitor` running there"
            ):
                await anext(watch(url, give_up_s=0))

        run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        f"ws://{url}/ws: nothing listens there; trying again"
    ]


def test_other_programs_are_an_error() -> None:
    """A web server, another WebSocket and a port without HTTP end the loop."""

    async def expect(url: str, error: type[WatchError], message: str) -> None:
        with pytest.raises(error, match=message):
            await anext(watch(url))

    async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()
        await writer.wait_closed()

    def not_found(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(404, "no")

    async def scenario() -> None:
        async with scripted(["hi"]) as url:
            await expect(url, NotUnmask, "not a message of unmask")
        async with scripted([json.dumps({"type": "hello", "seq": 1})]) as url:
            await expect(url, NotUnmask, "not the hello of unmask")
        async with scripted(verdicts(1)) as url:
            await expect(url, NotUnmask, "not the hello of unmask")
        for fields in ({}, {"protocol": 2}, {"protocol": 2, "session": 1}, {"protocol": 2, "session": "a"}):
            hello = {"type": "hello", "seq": "1", "software": "unmask", **fields}
            async with scripted([json.dumps(hello)]) as url:
                await expect(url, NotUnmask, "not a message of unmask")
        for text in ("[" * 100_000, "[]", "null", "{}", '{"type": null, "seq": 1}'):
            async with scripted([text]) as url:
                await expect(url, NotUnmask, "of unmask")
        for protocol in (1, 3):
            hello = {**json.loads(encode(HELLO)), "protocol": protocol}
            async with scripted([json.dumps(hello)]) as url:
                await expect(url, ProtocolMismatch, f"protocol {protocol}, this client 2; .* same version")
        async with serve_websockets(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=not_found
        ) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            await expect(f"127.0.0.1:{port}", NotUnmask, r"not a WebSocket \(HTTP 404\)")
        async with await asyncio.start_server(no_http, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            await expect(f"127.0.0.1:{port}", NotUnmask, "it is not a WebSocket")

    run(scenario)


def test_a_refusal_is_an_error() -> None:
    """A server that refuses the host name is not asked again."""

    async def scenario() -> None:
        def refuse(connection: ServerConnection, _: Request) -> Response:
            return connection.respond(421, "no")

        async with serve_websockets(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse
        ) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            with pytest.raises(AccessRefused, match=r"HTTP 421.*--allow-origin"):
                await anext(watch(f"127.0.0.1:{port}"))

    run(scenario)


def test_a_server_that_is_not_ready_is_tried_again() -> None:
    """HTTP 502 and 503 do not end the loop."""

    async def scenario() -> None:
        statuses = [503, 502]

        def process(connection: ServerConnection, _: Request) -> Response | None:
            return connection.respond(statuses.pop(0), "wait") if statuses else None

        async def handle(connection: ServerConnection) -> None:
            for line in opening(0):
                await connection.send(line)

        async with serve_websockets(handle, "127.0.0.1", 0, process_request=process) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            async with watch(f"127.0.0.1:{port}") as feed:
                assert (await anext(feed))["type"] == "hello"
        assert statuses == []

    run(scenario)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8765", "ws://127.0.0.1:8765/ws"),
        ("studio", "ws://studio:8765/ws"),
        ("[::1]:8765", "ws://[::1]:8765/ws"),
        ("http://127.0.0.1:8765/", "ws://127.0.0.1:8765/ws"),
        ("http://127.0.0.1:8765/overlay?stream=cam", "ws://127.0.0.1:8765/ws"),
        ("ws://127.0.0.1:8765/ws", "ws://127.0.0.1:8765/ws"),
        ("https://desk.example/unmask/", "wss://desk.example/unmask/ws"),
        ("http://desk.example", "ws://desk.example/ws"),
    ],
)
def test_addresses_lead_to_the_websocket(text: str, url: str) -> None:
    """Every address of a server is converted to that of its WebSocket."""
    assert websocket_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ws://", "rtsp://127.0.0.1/cam", "127.0.0.1:x", "127.0.0.1:99999", "a b", "a..b"]
)
def test_a_malformed_address_is_an_error_at_once(text: str) -> None:
    """The error gives an example of a correct address."""
    with pytest.raises(AddressInvalid, match=r"such as ws://127\.0\.0\.1:8765/ws"):
        watch(text)


def test_errors_do_not_repeat_credentials() -> None:
    """A password in an address does not reach a log through an error."""
    for text in ("http://me:secret@127.0.0.1:8765/", "http://me:secret@127.0.0.1:x/"):
        with pytest.raises(AddressInvalid) as refused:
            watch(text)
        assert "secret" not in str(refused.value)
        assert "secret" not in repr(refused.value)


def test_a_token_is_presented_and_a_wrong_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong, missing or removed token ends the iteration with advice; white space does not matter."""
    monkeypatch.setattr("runtime.serving.session.AUTH_TIMEOUT_S", 0.05)
    right = "right-token-0123456789"
    tokens = TokenSet(parse_tokens(f"{right} read", Path("tokens")))

    async def scenario() -> None:
        async with serve(make_broadcaster(), port=0, security=Security(tokens=tokens)) as server:
            async with watch(server.urls.websocket, token=f"{right}\n") as feed:
                assert (await anext(feed))["type"] == "hello"
                assert server.gate is not None
                server.gate.tokens = TokenSet(())
                with pytest.raises(TokenRefused, match="has expired or was removed; give a valid token"):
                    await receive(feed, 1000)
            for token in ("wrong", None):
                with pytest.raises(TokenRefused, match="token"):
                    await anext(watch(server.urls.websocket, token=token))

    run(scenario)
