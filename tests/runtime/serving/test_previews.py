"""Frames for clients: who gets which, encoded once, without holding up anything else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from fractions import Fraction
from functools import partial
from typing import Any

import av
import cv2
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from runtime.client_messages import PreviewRequest
from runtime.messages import StreamMessage
from runtime.serving.client_queue import EncodedPreview, PreviewQueue
from runtime.serving.previews.demand import (
    MAX_REQUESTS,
    EncodingSchedule,
    PreviewDemand,
    RequestedFormat,
    formats_of,
)
from runtime.serving.previews.jpeg import JpegEncoder
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.serving.server import serve
from streams.input.frame import Frame
from tests.support.aio import run, until
from tests.support.wire import make_broadcaster, validate, verdict

SAMPLES = [index / 8 for index in range(80)]


def image(width: int = 640, height: int = 360, colour: tuple[int, int, int] = (200, 60, 20)) -> av.VideoFrame:
    """Make a frame of one colour, RGB, in the usual pixel format."""
    pixels = np.full((height, width, 3), colour, np.uint8)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


def frame(pts_s: float, **options: Any) -> Frame:
    """Make a sample of a stream."""
    return Frame(
        image=image(**options),
        pts=round(1000 * pts_s),
        time_base=Fraction(1, 1000),
        captured=None,
        decode_ms=1.0,
        connection=1,
        segment=1,
    )


def parts(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a binary message into its header, which must fit asyncapi.yaml, and the JPEG."""
    length = int.from_bytes(message[:4], "big")
    header = json.loads(message[4 : 4 + length])
    validate(header)
    return header, message[4 + length :]


def test_a_request_replaces_the_one_about_the_same_stream() -> None:
    """Streams without a request of their own follow the one about all streams."""
    demand = PreviewDemand()
    assert (bool(demand), demand.requested("cam")) == (False, None)
    demand.request(PreviewRequest(width=400, rate_hz=2))
    assert demand.requested("cam") == RequestedFormat(320, 2)
    demand.request(PreviewRequest(stream="cam", width=5000, rate_hz=8))
    assert (demand.requested("cam"), demand.requested("door")) == (
        RequestedFormat(960, 8),
        RequestedFormat(320, 2),
    )
    demand.request(PreviewRequest(stream="cam", width=0))
    assert (demand.requested("cam"), demand.requested("door")) == (None, RequestedFormat(320, 2))
    demand.request(PreviewRequest(stream="cam", width=None))
    assert demand.requested("cam") == RequestedFormat(320, 2)
    demand.request(PreviewRequest(width=0))
    assert (bool(demand), demand.requested("door")) == (False, None)
    demand.request(PreviewRequest(width=None))
    assert (bool(demand), demand.requested("door")) == (False, None)


def test_a_client_names_a_limited_number_of_streams() -> None:
    """A client that invents names uses no more memory."""
    demand = PreviewDemand()
    for number in range(2 * MAX_REQUESTS):
        demand.request(PreviewRequest(stream=f"s{number}"))
    assert demand.requested("s0") is None
    assert demand.requested(f"s{2 * MAX_REQUESTS - 1}") is not None


@pytest.mark.parametrize(("rate_hz", "expected"), [(0.5, 5), (3, 30), (4, 40), (8, 80), (1000, 80)])
def test_frames_come_at_the_requested_rate(rate_hz: float, expected: int) -> None:
    """Of ten seconds at 8 Hz, the client gets the number that it asked for, and never more than there are."""
    demand, schedule = PreviewDemand(), EncodingSchedule()
    demand.request(PreviewRequest(rate_hz=rate_hz))
    schedule.update(partial(formats_of, [demand]))
    encoded = [pts_s for pts_s in SAMPLES if schedule.due("cam", pts_s)]
    assert len(encoded) == pytest.approx(expected, abs=1)
    assert sum(demand.due("cam", 320, pts_s) for pts_s in encoded) == pytest.approx(expected, abs=1)


def test_the_fastest_client_of_each_width_decides() -> None:
    """A frame is encoded once per width, and each client gets its own width at its own rate."""
    slow, fast, large = PreviewDemand(), PreviewDemand(), PreviewDemand()
    slow.request(PreviewRequest(rate_hz=2))
    fast.request(PreviewRequest(rate_hz=8))
    large.request(PreviewRequest(stream="cam", width=960, rate_hz=4))
    schedule = EncodingSchedule()
    schedule.update(partial(formats_of, [slow, fast, large]))
    counts = {"slow": 0, "fast": 0, "large": 0, "encoded": 0}
    for pts_s in SAMPLES:
        for width in schedule.due("cam", pts_s):
            counts["encoded"] += 1
            for name, demand in (("slow", slow), ("fast", fast), ("large", large)):
                counts[name] += demand.due("cam", width, pts_s)
    assert counts == {"slow": 20, "fast": 80, "large": 40, "encoded": 120}
    assert schedule.due("door", 0.0) == {320}


def test_a_newer_frame_takes_the_place_of_the_waiting_one() -> None:
    """Streams keep their turn; each has at most one frame waiting."""
    queue = PreviewQueue()
    for stream, pts_s in (("a", 0.0), ("b", 0.0), ("a", 1.0)):
        queue.push(EncodedPreview(stream, 320, pts_s, b""))
    taken = [queue.pop() for _ in range(3)]
    assert [None if one is None else (one.stream, one.pts_s) for one in taken] == [
        ("a", 1.0),
        ("b", 0.0),
        None,
    ]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj444p", "nv12", "gray", "rgb24", "yuv420p10le"])
@pytest.mark.parametrize(
    ("size", "expected"), [((1920, 1080), (320, 180)), ((90, 1600), (90, 1600)), ((1, 1), (1, 1))]
)
def test_a_frame_becomes_a_small_jpeg(
    pixel_format: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Any pixel format and shape; the colour is kept, and a small frame is not enlarged."""
    source = image(*size).reformat(format=pixel_format)
    data, width, height = JpegEncoder().encode(source, 320)
    assert (width, height) == expected
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (height, width, 3)
    if pixel_format != "gray":
        assert decoded[height // 2, width // 2].astype(int) == pytest.approx([20, 60, 200], abs=8)


async def request(connection: ClientConnection, **fields: Any) -> None:
    """Send a request for frames."""
    await connection.send(json.dumps({"type": "request_previews", **fields}))


def test_a_client_receives_frames_only_on_request() -> None:
    """The verdicts on a frame come before it; without a request, and after its end, nothing is encoded."""

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        with PreviewPublisher() as previews:
            async with (
                serve(broadcaster, port=0, previews=previews) as server,
                connect(server.urls.websocket, proxy=None) as watching,
                connect(server.urls.websocket, proxy=None) as silent,
            ):
                for connection in (watching, silent):
                    assert isinstance(await connection.recv(), str)
                    assert isinstance(await connection.recv(), str)
                previews.offer("cam", frame(0.0))
                await request(watching, stream="cam", width=160, rate_hz=8)
                await watching.send("hello?")
                await watching.send(b"\x00\xff")
                pts_s = 0.0
                received: list[str | bytes] = []
                while not received or isinstance(received[-1], str):
                    pts_s += 1
                    broadcaster.publish(verdict(pts_s=pts_s))
                    previews.offer("cam", frame(pts_s, width=320, height=180))
                    previews.offer("door", frame(pts_s))
                    received.append(await watching.recv())
                assert isinstance(received[-1], bytes)
                header, jpeg = parts(received[-1])
                assert (header["stream"], header["width"], header["height"]) == ("cam", 160, 90)
                times = [json.loads(message)["pts_s"] for message in received[:-1]]
                assert header["pts_s"] in times
                assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
                await request(watching, stream="cam", width=0)
                # Once a frame is not encoded any more, the end of the request has arrived.
                encoded = -1
                while encoded != previews.encoded:
                    encoded, pts_s = previews.encoded, pts_s + 1
                    previews.offer("cam", frame(pts_s))
                    await asyncio.sleep(0.05)
                last = broadcaster.publish(StreamMessage(stream="cam", state="offline"))
                kinds = set()
                while True:
                    message = await silent.recv()
                    kinds.add(type(message))
                    if json.loads(message)["seq"] == last:
                        break
                assert kinds == {str}

    run(scenario)


def test_a_client_that_stops_reading_holds_up_nobody() -> None:
    """One frame per stream waits for it; the other client goes on receiving."""

    async def scenario() -> None:
        with PreviewPublisher(cpu_share=1.0) as previews:
            broadcaster = make_broadcaster()
            async with (
                serve(broadcaster, port=0, previews=previews) as server,
                connect(server.urls.websocket, proxy=None) as watching,
                connect(server.urls.websocket, proxy=None, max_queue=1) as stuck,
            ):
                await request(watching, rate_hz=1000)
                await request(stuck, rate_hz=1000)
                await until(lambda: broadcaster.clients == 2)
                pts_s, newest = 0.0, 0.0
                while newest < 60:
                    pts_s += 1
                    previews.offer("cam", frame(pts_s, width=320, height=180))
                    broadcaster.publish(verdict(pts_s=pts_s))
                    message = await watching.recv()
                    if isinstance(message, bytes):
                        newest = parts(message)[0]["pts_s"]
                broadcaster.publish(StreamMessage(stream="the last", state="live"))
                frames = []
                while True:
                    message = await stuck.recv()
                    if isinstance(message, bytes):
                        frames.append(parts(message)[0]["pts_s"])
                    elif json.loads(message).get("stream") == "the last":
                        break
                assert frames == sorted(frames)
                # A closing handshake would wait behind frames that nobody reads.
                for connection in (watching, stuck):
                    connection.transport.abort()

    run(scenario)


def test_offering_frames_does_not_wait_for_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the encoder works on one frame, newer ones of the same stream replace each other."""
    begun, proceed = threading.Event(), threading.Event()
    seen: list[int] = []

    def encode(self: JpegEncoder, image: av.VideoFrame, max_width: int) -> tuple[bytes, int, int]:
        begun.set()
        assert proceed.wait(10)
        seen.append(max_width)
        return b"", 1, 1

    monkeypatch.setattr(JpegEncoder, "encode", encode)

    async def scenario() -> None:
        queued: list[float] = []
        with (
            PreviewPublisher() as previews,
            previews.connect(lambda one: queued.append(one.pts_s)) as requests,
        ):
            requests.request(PreviewRequest(rate_hz=100))
            previews.offer("cam", frame(0.0))
            assert await asyncio.to_thread(begun.wait, 10)
            for pts_s in range(1, 50):
                previews.offer("cam", frame(float(pts_s)))
            proceed.set()
            await until(lambda: len(queued) == 2)
        assert queued == [0.0, 49.0]
        assert seen == [320, 320]

    run(scenario)


def test_a_frame_that_cannot_be_encoded_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other streams go on."""
    real = JpegEncoder.encode

    def encode(self: JpegEncoder, image: av.VideoFrame, max_width: int) -> tuple[bytes, int, int]:
        if image.width == 100:
            raise ValueError("broken")
        return real(self, image, max_width)

    monkeypatch.setattr(JpegEncoder, "encode", encode)

    async def scenario() -> None:
        queued: list[str] = []
        with (
            PreviewPublisher() as previews,
            previews.connect(lambda one: queued.append(one.stream)) as requests,
        ):
            requests.request(PreviewRequest(rate_hz=100))
            for pts_s in range(3):
                previews.offer("bad", frame(float(pts_s), width=100, height=100))
                previews.offer("good", frame(float(pts_s)))
                await until(lambda count=pts_s + 1: len(queued) == count)  # type: ignore[misc]
        assert queued == ["good"] * 3

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["bad: no frames can be shown"]


@pytest.mark.parametrize("cpu_share", [0.0, 1.1])
def test_the_share_of_the_cpu_is_checked(cpu_share: float) -> None:
    """A share that makes no sense is refused."""
    with pytest.raises(ValueError, match="cpu_share"):
        PreviewPublisher(cpu_share=cpu_share)
