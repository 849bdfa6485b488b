"""WHIP sender for tests: aiortc sends frames of a video, or of given sizes, to a server."""

from __future__ import annotations

import asyncio
import fractions
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import VideoStreamTrack


class FrameTrack(VideoStreamTrack):
    """Track of given frames, each sent 1 / fps seconds after the last."""

    def __init__(self, frames: Iterator[av.VideoFrame], fps: float) -> None:
        super().__init__()
        self._frames = frames
        self._fps = fps
        self._start_s: float | None = None
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        """Return the next frame when it is due."""
        now_s = time.monotonic()
        self._start_s = self._start_s or now_s
        due_s = self._count / self._fps
        await asyncio.sleep(max(0.0, self._start_s + due_s - now_s))
        frame = next(self._frames)
        frame.pts, frame.time_base = round(due_s * 90000), fractions.Fraction(1, 90000)
        self._count += 1
        return frame


def frames_of_video(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video again and again."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    for frame in itertools.cycle(frames):
        yield frame.reformat(format="yuv420p")


def grey_frames(*sizes: tuple[int, int], each: int) -> Iterator[av.VideoFrame]:
    """Yield changing grey frames, `each` of every size, in turn."""
    level = 0
    for width, height in itertools.cycle(sizes):
        for _ in range(each):
            level = (level + 3) % 200
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = 16 + level
            yield av.VideoFrame.from_ndarray(planes, format="yuv420p")


def post(url: str, body: bytes, *, method: str = "POST", **headers: str) -> tuple[int, Any, str]:
    """Send a request; return status, headers and body, also of an error."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, data=body, method=method, headers=names), timeout=20) as response:
            return response.status, response.headers, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


@asynccontextmanager
async def sending(
    url: str, frames: Iterator[av.VideoFrame], *, fps: float = 25.0, token: str = ""
) -> AsyncIterator[tuple[str, Any]]:
    """Send frames to a WHIP address while the context lasts; yields the session's address and the headers."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        connection.addTransceiver(FrameTrack(frames, fps), direction="sendonly")
        await connection.setLocalDescription(await connection.createOffer())
        headers = {"Content_Type": "application/sdp"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        offer = connection.localDescription.sdp.encode()
        status, answered, body = await asyncio.to_thread(post, url, offer, **headers)
        assert status == 201, body
        await connection.setRemoteDescription(RTCSessionDescription(sdp=body, type="answer"))
        yield f"{url.rpartition('/')[0]}/{answered['Location']}", answered
    finally:
        await connection.close()
