"""Tests of senders by WHIP: an aiortc client, the server, and the reader of the source."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCPeerConnection

from runtime.errors import ExtraMissing
from runtime.messages import HelloMessage
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Security, Server, serve
from runtime.serving.whip.endpoint import WhipEndpoint, require_webrtc
from runtime.serving.whip.limits import SenderLimits
from runtime.serving.whip.sender import Sender
from streams.errors import SourceInvalid, SourceWaiting
from streams.input.events import Connected, Disconnected
from streams.input.frame import Frame
from streams.input.reader import Reader, open_reader
from streams.input.source import parse_source
from tests.support.aio import run, until
from tests.support.reading import SHORT_BACKOFF, Events, take
from tests.support.whip_client import frames_of_video, grey_frames, post, sending

KEY = "s3cr3t-key"
READER, SENDER = "reader-" + "r" * 40, "sender-" + "s" * 40


@asynccontextmanager
async def receiving(
    text: str, security: Security | None = None, on_start: Callable[[Server], object] = lambda server: None
) -> AsyncIterator[tuple[str, Reader, Events]]:
    """Serve one source; yield the base address, its reader and its events."""
    source = parse_source(text)
    endpoint = WhipEndpoint(lambda: [source])
    events = Events()
    broadcaster = Broadcaster(HelloMessage(version="0", session="s"))
    async with serve(broadcaster, port=0, routes=endpoint.routes, security=security) as server:
        on_start(server)
        reader = open_reader(source, sample_hz=8.0, on_event=events, backoff=SHORT_BACKOFF)
        try:
            with reader:
                yield server.urls.dashboard, reader, events
        finally:
            await endpoint.close()


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def test_a_sender_is_read_like_any_source(face_video: Path) -> None:
    """Frames arrive with capture times; a sender that deletes its session leaves, and another may come."""

    async def scenario() -> None:
        async with receiving(f"call=whip:{KEY}") as (base, reader, events):
            for _ in range(2):
                async with sending(f"{base}whip/{KEY}", frames_of_video(face_video)) as (session, headers):
                    assert headers["Unmask-Stream"] == "call"
                    connected = await in_thread(events.wait_for, Connected)
                    assert (connected.width, connected.height) == (640, 360)
                    frames: list[Frame] = [await in_thread(take, reader) for _ in range(8)]
                    assert all(frame.captured is not None for frame in frames)
                    assert frames[-1].segment == frames[-2].segment
                    status, _, _ = await in_thread(lambda: post(session, b"", method="DELETE"))
                    assert status == 200
                    left = await in_thread(events.wait_for, Disconnected)
                    assert isinstance(left.error, SourceWaiting)
                    assert left.retry_in_s == 0
                assert (await in_thread(lambda: post(session, b"", method="DELETE")))[0] == 200
                status, _, text = await in_thread(lambda: post(f"{session}x", b"", method="DELETE"))
                assert (status, "no such session" in text) == (404, True)
            assert KEY not in repr(events.received) + reader.source.spec + repr(reader.source)

    run(scenario)


def test_frames_of_changing_size_begin_a_segment() -> None:
    """A window that is resized never shares a window of samples with its former size."""

    async def scenario() -> None:
        async with receiving("browser") as (base, reader, _):
            frames = grey_frames((320, 240), (480, 320), each=20)
            async with sending(f"{base}whip/browser", frames):
                taken: list[Frame] = [await in_thread(take, reader) for _ in range(24)]
        sizes = {frame.segment: set[tuple[int, int]]() for frame in taken}
        for frame in taken:
            sizes[frame.segment].add((frame.width, frame.height))
        assert all(len(found) == 1 for found in sizes.values())
        assert set().union(*sizes.values()) == {(320, 240), (480, 320)}

    run(scenario)


def test_one_sender_at_a_time(face_video: Path) -> None:
    """A second one gets HTTP 409 while the first one sends."""

    async def scenario() -> None:
        async with receiving("browser") as (base, reader, _):
            address = f"{base}whip/browser"
            async with sending(address, frames_of_video(face_video)):
                await in_thread(take, reader)
                status, _, text = await in_thread(
                    lambda: post(address, b"v=0", Content_Type="application/sdp")
                )
                assert (status, "Another sender is connected" in text) == (409, True)

    run(scenario)


@pytest.fixture
def may_close(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Event that the closing of the server's connections waits for."""
    event = asyncio.Event()

    class SlowConnection(RTCPeerConnection):
        async def close(self) -> None:
            await event.wait()
            await super().close()

    monkeypatch.setattr("runtime.serving.whip.sender.RTCPeerConnection", SlowConnection)
    return event


def test_senders_that_offer_while_an_idle_one_is_closed(
    monkeypatch: pytest.MonkeyPatch, may_close: asyncio.Event
) -> None:
    """They wait until it has ended, which takes a while, and the server goes on meanwhile."""
    close = Sender.close
    calls = 0

    async def counted(sender: Sender) -> None:
        nonlocal calls
        calls += 1
        assert calls < 100, "it is closed again and again"
        await close(sender)

    monkeypatch.setattr("runtime.serving.whip.sender.IDLE_S", -1.0)
    monkeypatch.setattr(Sender, "close", counted)

    async def scenario() -> None:
        async with receiving("browser") as (base, _, _):
            address = f"{base}whip/browser"
            async with sending(address, grey_frames((320, 240), each=1)) as (session, _):
                ends = asyncio.create_task(in_thread(lambda: post(session, b"", method="DELETE")))
                offers = [
                    asyncio.create_task(
                        in_thread(lambda: post(address, b"v=0", Content_Type="application/sdp"))
                    )
                    for _ in range(2)
                ]
                await until(lambda: calls >= 3)
                assert not ends.done()
                may_close.set()
                assert (await ends)[0] == 200
                # The offers are refused only when it was their turn.
                assert [(await offer)[0] for offer in offers] == [400, 400]

    run(scenario)


def test_a_cancelled_request_does_not_keep_a_sender(may_close: asyncio.Event) -> None:
    """Its connection is closed nevertheless, and the source is free for the next one."""

    async def scenario() -> None:
        ended = asyncio.Event()
        inlet = parse_source("browser").inlet
        assert inlet is not None
        sender = Sender(inlet, name="browser", stun=(), on_end=ended.set)
        request = asyncio.create_task(sender.close())
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        may_close.set()
        await ended.wait()
        await sender.close()

    run(scenario)


def test_a_sender_of_huge_frames_is_disconnected(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the size; the source accepts the next sender."""

    async def scenario() -> None:
        async with receiving("browser") as (base, reader, _):
            address = f"{base}whip/browser"
            async with sending(address, grey_frames((4096, 2304), each=1), fps=1):
                await until(lambda: "larger than 3840 x 2160" in caplog.text)
            async with sending(address, grey_frames((320, 240), each=1)):
                assert (await in_thread(take, reader)).width == 320

    run(scenario)
    assert "browser: the sender is disconnected: its frames of 4096 x 2304 are larger" in caplog.text


def test_limits() -> None:
    """Size, rate and delay are limited; frames that were held up may arrive at once."""
    limits = SenderLimits()
    size = {"width": 640, "height": 360}
    reason = limits.violation(width=16384, height=16384, arrival_s=0.0, pts_s=0.0)
    assert reason is not None
    assert "larger than 3840 x 2160" in reason
    times = [number / 25 for number in range(500)]
    assert {limits.violation(**size, arrival_s=10 + t, pts_s=t) for t in times} == {None}
    assert {limits.violation(**size, arrival_s=33.0, pts_s=20 + t) for t in times[:75]} == {None}
    fast = SenderLimits()
    found = {fast.violation(**size, arrival_s=t / 20, pts_s=t / 20) for t in times}
    assert found == {None, "it sends more than 120 frames a second"}
    slow = SenderLimits()
    found = {slow.violation(**size, arrival_s=2 * t, pts_s=t) for t in times}
    assert found == {None, "its frames arrive faster than this machine decodes them"}


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "words"),
    [
        ("whip/browser", b"v=0", "text/plain", 415, "application/sdp"),
        ("whip/browser", b"", "application/sdp", 400, "offer"),
        ("whip/browser", b"\xff\x00garbage\n" * 50, "application/sdp", 400, "offer"),
        (
            "whip/browser",
            b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
            "application/sdp",
            400,
            "no video",
        ),
        (
            "whip/browser",
            b"v=0" + b"\r\nm=video 9 UDP/TLS/RTP/SAVPF 96" * 500,
            "application/sdp",
            400,
            "too many",
        ),
        ("whip/browser", b"x" * 70_000, "application/sdp", 413, "at most"),
        ("whip/other", b"v=0", "application/sdp", 404, "whip:KEY"),
        ("whip/", b"v=0", "application/sdp", 404, "whip:KEY"),
        ("whip/browser/1", b"v=0", "application/sdp", 404, "address of the source"),
    ],
)
def test_bad_offers(path: str, body: bytes, content_type: str, status: int, words: str) -> None:
    """Each gets one line; the next sender is accepted."""

    async def scenario() -> None:
        async with receiving("browser") as (base, _, _):
            answer = await in_thread(lambda: post(base + path, body, Content_Type=content_type))
            assert answer[0] == status
            assert words in answer[2]
            assert answer[2].count("\n") == 1
            again = await in_thread(lambda: post(f"{base}whip/browser", b"", Content_Type="application/sdp"))
            assert again[0] == 400

    run(scenario)


def test_the_right_to_send(face_video: Path) -> None:
    """With tokens, a sender needs one with the right to send; that right alone is enough."""
    text = f"{READER} read\n{SENDER} send"
    security = Security(tokens=TokenSet(parse_tokens(text, Path("tokens"))))

    async def scenario() -> None:
        async with receiving("browser", security) as (base, reader, _):
            address = f"{base}whip/browser"
            for headers, status in (({}, 401), ({"Authorization": f"Bearer {READER}"}, 403)):
                found = await in_thread(
                    lambda headers=headers: post(address, b"v=0", Content_Type="application/sdp", **headers)
                )
                assert found[0] == status, found[2]
            async with sending(address, frames_of_video(face_video), token=SENDER):
                assert (await in_thread(take, reader)).width == 640

    run(scenario)


def test_a_removed_token_ends_its_sender(face_video: Path) -> None:
    """Although its request has long been answered."""
    security = Security(tokens=TokenSet(parse_tokens(f"{READER} read\n{SENDER} send", Path("tokens"))))

    async def scenario() -> None:
        servers: list[Server] = []
        async with (
            receiving("browser", security, servers.append) as (base, reader, events),
            sending(f"{base}whip/browser", frames_of_video(face_video), token=SENDER),
        ):
            await in_thread(events.wait_for, Connected)
            assert (await in_thread(take, reader)).width == 640
            (server,) = servers
            assert server.gate is not None
            server.gate.tokens = TokenSet(parse_tokens(f"{READER} read", Path("tokens")))
            left = await in_thread(events.wait_for, Disconnected)
            assert isinstance(left.error, SourceWaiting)

    run(scenario)


def test_no_stun_server_is_asked(face_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc would ask a public one by default."""
    monkeypatch.delattr("aiortc.rtcicetransport.RTCIceGatherer.getDefaultIceServers")

    async def scenario() -> None:
        async with (
            receiving("browser") as (base, reader, _),
            sending(f"{base}whip/browser", frames_of_video(face_video)),
        ):
            assert (await in_thread(take, reader)).width == 640

    run(scenario)


def test_without_aiortc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra; other sources do not need it."""
    monkeypatch.setitem(sys.modules, "aiortc", None)
    require_webrtc([parse_source("demo")])
    with pytest.raises(ExtraMissing, match=r"the source desk needs aiortc.*unmask\[webrtc\]"):
        require_webrtc([parse_source("desk=browser")])


@pytest.mark.parametrize("text", ["whip:", "whip:a/b", "whip:a b", "whip:" + "x" * 129])
def test_keys(text: str) -> None:
    """A key is part of an address; an invalid one is not shown."""
    with pytest.raises(SourceInvalid, match=r"^whip:…: its key must consist"):
        parse_source(text)
