"""`watch` keeps watching through everything that can break, and says what it cannot get over."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from runtime.client import (
    AccessRefused,
    AddressInvalid,
    NotUnmask,
    ProtocolMismatch,
    ServerUnreachable,
    Watch,
    WatchError,
    watch,
    websocket_url,
)
from runtime.messages import HeartbeatMessage, HelloMessage, SnapshotMessage, StreamMessage, encode
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import serve
from tests.support.wire import HELLO, make_broadcaster, validate, verdict

PATIENCE_S = 30


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test."""

    async def told() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story()

    asyncio.run(told())


async def receive(feed: Watch, count: int) -> list[dict[str, Any]]:
    """Receive a number of messages."""
    return [await anext(feed) for _ in range(count)]


@asynccontextmanager
async def scripted(*scripts: list[str]) -> AsyncIterator[str]:
    """Serve clients one after the other, each with its own script, after which the connection is closed."""
    waiting = list(scripts)

    async def talk(connection: ServerConnection) -> None:
        for line in waiting.pop(0) if waiting else []:
            await connection.send(line)

    async with serve_websockets(talk, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def greeting(seq: int, *, session: str = "a run") -> list[str]:
    """Write what opens a connection after the broadcast message number `seq`."""
    hello = HelloMessage(seq=seq, version="1", session=session)
    return [encode(message).decode() for message in (hello, SnapshotMessage(seq=seq))]


def verdicts(*seqs: int) -> list[str]:
    """Write verdicts with these numbers."""
    return [encode(verdict().stamp(seq, 0.0)).decode() for seq in seqs]


def test_messages_arrive_in_order() -> None:
    """The loop gets hello, snapshot and every message, as dictionaries that fit the description."""

    async def story() -> None:
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

    run(story)


def test_leaving_the_loop_leaves_the_server() -> None:
    """A `break` needs no further care: the connection ends with the iteration."""

    async def story() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0) as server:
            async for _ in watch(f"127.0.0.1:{server.port}"):
                assert broadcaster.clients == 1
                break
            while broadcaster.clients:
                await asyncio.sleep(0.005)

    run(story)


@pytest.mark.parametrize("form", ["ws://127.0.0.1:{}/ws", "http://localhost:{}/", "127.0.0.1:{}"])
def test_every_printed_address_works(form: str) -> None:
    """The dashboard's link, the WebSocket's and the mere address all lead to the messages."""

    async def story() -> None:
        async with serve(make_broadcaster(), host="localhost", port=0) as server:
            url = form.format(server.port).replace("127.0.0.1", "localhost")
            async with watch(url) as feed:
                assert (await anext(feed))["type"] == "hello"

    run(story)


def test_a_broken_connection_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """When the server comes back, so do the messages; the program hears of the gap in between."""

    async def story() -> None:
        reasons: list[str] = []
        async with serve(make_broadcaster(), port=0) as server:
            feed = watch(server.urls.websocket, on_disconnect=reasons.append)
            await receive(feed, 2)
        assert reasons == []
        returning = asyncio.create_task(receive(feed, 2))
        while not reasons:
            await asyncio.sleep(0.005)
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
    run(story)
    # One warning for the whole time without a server, however many attempts were made.
    assert len([record for record in caplog.records if record.name == "runtime.client"]) == 1


def test_what_was_missed_is_counted() -> None:
    """Gaps in the numbers count as lost, within a connection and across a reconnection of the same run."""

    async def story() -> None:
        scripts = (
            [*greeting(10), *verdicts(11, 12, 15)],  # 13 and 14 are missing
            [*greeting(20), *verdicts(21)],  # 16 to 20 went by while the connection was down
            [*greeting(3, session="another run"), *verdicts(4, 6)],  # numbers start over; 5 is missing
        )
        async with scripted(*scripts) as url, watch(url) as feed:
            lost = []
            for script in scripts:
                await receive(feed, len(script))
                lost.append(feed.lost)
            assert lost == [2, 7, 8]

    run(story)


def test_a_server_that_falls_silent_is_left() -> None:
    """A connection that is open but dead is noticed without the network's help."""

    async def story() -> None:
        async with serve(make_broadcaster(), port=0) as server:
            reasons: list[str] = []
            async with watch(server.urls.websocket, silence_s=0.05, on_disconnect=reasons.append) as feed:
                assert [message["type"] for message in await receive(feed, 4)] == ["hello", "snapshot"] * 2
            assert reasons == ["no message for too long"]

    run(story)


def test_patience_has_an_end_if_wanted(caplog: pytest.LogCaptureFixture) -> None:
    """`give_up_s` turns a server that is not there into an error that says so."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{reserved.getsockname()[1]}"

        async def story() -> None:
            with pytest.raises(
                ServerUnreachable, match="nothing listens there; is `unmask monitor` running there"
            ):
                await anext(watch(url, give_up_s=0))

        run(story)
    assert [record.getMessage() for record in caplog.records] == [
        f"ws://{url}/ws: nothing listens there; trying again"
    ]


def test_something_else_than_unmask_is_told() -> None:
    """A web server, another program's WebSocket and a port that speaks no HTTP end the loop, with words."""

    async def expect(url: str, error: type[WatchError], words: str) -> None:
        with pytest.raises(error, match=words):
            await anext(watch(url))

    async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()
        await writer.wait_closed()

    def not_found(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(404, "no")

    async def story() -> None:
        async with scripted(["hi"]) as url:
            await expect(url, NotUnmask, "no message of unmask")
        async with scripted([json.dumps({"type": "hello", "seq": 1})]) as url:
            await expect(url, NotUnmask, "not the hello of unmask")
        async with scripted(verdicts(1)) as url:
            await expect(url, NotUnmask, "not the hello of unmask")
        for protocol in (1, 3):
            hello = {**json.loads(encode(HELLO)), "protocol": protocol}
            async with scripted([json.dumps(hello)]) as url:
                await expect(url, ProtocolMismatch, f"protocol {protocol}, this client 2; .* same version")
        async with serve_websockets(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=not_found
        ) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            await expect(f"127.0.0.1:{port}", NotUnmask, r"no WebSocket \(HTTP 404\)")
        async with await asyncio.start_server(no_http, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            await expect(f"127.0.0.1:{port}", NotUnmask, "it is no WebSocket")

    run(story)


def test_a_refusal_is_told() -> None:
    """A server that does not answer to the name used says so once, instead of being asked for ever."""

    async def story() -> None:
        def refuse(connection: ServerConnection, _: Request) -> Response:
            return connection.respond(421, "no")

        async with serve_websockets(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse
        ) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            with pytest.raises(AccessRefused, match=r"HTTP 421.*--allow-origin"):
                await anext(watch(f"127.0.0.1:{port}"))

    run(story)


def test_a_server_that_is_not_ready_is_waited_for() -> None:
    """503, which a server that shuts down or a proxy in front of it gives, is no reason to end."""

    async def story() -> None:
        answers = [503, 502]

        def process(connection: ServerConnection, _: Request) -> Response | None:
            return connection.respond(answers.pop(0), "wait") if answers else None

        async def talk(connection: ServerConnection) -> None:
            for line in greeting(0):
                await connection.send(line)

        async with serve_websockets(talk, "127.0.0.1", 0, process_request=process) as web:
            port = next(iter(web.sockets)).getsockname()[1]
            async with watch(f"127.0.0.1:{port}") as feed:
                assert (await anext(feed))["type"] == "hello"
        assert answers == []

    run(story)


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
def test_addresses_become_that_of_the_socket(text: str, url: str) -> None:
    """Whatever a person copies leads to the WebSocket."""
    assert websocket_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ws://", "rtsp://127.0.0.1/cam", "127.0.0.1:x", "127.0.0.1:99999", "a b", "a..b"]
)
def test_a_wrong_address_is_told_before_anything_is_tried(text: str) -> None:
    """A mistake in the address is an error at once, with an example of a right one."""
    with pytest.raises(AddressInvalid, match=r"such as ws://127\.0\.0\.1:8765/ws"):
        watch(text)


def test_credentials_in_an_address_are_not_repeated() -> None:
    """What looks like a password does not end up in a log through an error."""
    for text in ("http://me:secret@127.0.0.1:8765/", "http://me:secret@127.0.0.1:x/"):
        with pytest.raises(AddressInvalid) as refused:
            watch(text)
        assert "secret" not in str(refused.value)
        assert "secret" not in repr(refused.value)
