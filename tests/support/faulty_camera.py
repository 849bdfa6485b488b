"""RTSP camera whose faults a test chooses: time stamps, frame rate, size and data of each frame.

    with FaultyCamera(steady(grey(75))) as camera:
        read(camera.url)

It serves one client at a time over TCP, and starts from its first frame for each client. It is written here
because GStreamer's server sends correct time stamps only.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Self

import av
import numpy as np

CLOCK_HZ = 90_000  # of RTP time stamps of video
MAX_PAYLOAD = 1300
BLACK = 16  # luma of the first frame


@dataclass(frozen=True)
class CameraFrame:
    """One encoded frame.

    Args:
        at_s: When it is sent, in seconds after the client's PLAY.
        stamp_s: Its time stamp in seconds.
        data: H.264, with start codes.
    """

    at_s: float
    stamp_s: float
    data: bytes


def grey(count: int, *, width: int = 320, height: int = 240, first: int = 0) -> list[bytes]:
    """Encode flat grey frames whose luma is their index plus 16, as H.264 without B-frames.

    Every 25th frame is a keyframe with its parameter sets. The index can be up to 219.
    """
    coder = av.CodecContext.create("libx264", "w")
    assert isinstance(coder, av.VideoCodecContext)
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.time_base, coder.framerate, coder.gop_size = Fraction(1, 25), Fraction(25), 25
    coder.options = {"preset": "ultrafast", "tune": "zerolatency", "qp": "4"}
    packets: list[bytes] = []
    for index in range(count):
        planes = np.full((height * 3 // 2, width), 128, np.uint8)
        planes[:height] = BLACK + first + index
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        packets += [bytes(packet) for packet in coder.encode(frame)]
    return packets + [bytes(packet) for packet in coder.encode(None)]


def brightness_index(image: av.VideoFrame) -> int:
    """Read the index of a frame of `grey` from its middle."""
    return int(image.to_ndarray(format="yuv420p")[image.height // 2, image.width // 2]) - BLACK


def steady(
    data: Sequence[bytes], *, fps: float = 25.0, stamp_s: Callable[[float], float] = lambda at_s: at_s
) -> list[CameraFrame]:
    """Return frames that are sent at a steady rate, with the time stamps of a function of their true time."""
    return [CameraFrame(index / fps, stamp_s(index / fps), one) for index, one in enumerate(data)]


class FaultyCamera:
    """Camera that sends the given frames to each client and then keeps silent.

    Args:
        frames: The frames, in order.
    """

    def __init__(self, frames: Sequence[CameraFrame]) -> None:
        self._frames = frames
        self._server = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="faulty camera", daemon=True)

    @property
    def url(self) -> str:
        """Return the camera's address."""
        return f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/cam"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for open_socket in (self._server, self._client):
            if open_socket is not None:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)
                open_socket.close()
        self._thread.join(timeout=5.0)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                self._client, _ = self._server.accept()
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._client as client:
                    self._answer(client)
                    self._send(client)
                    self._stop.wait()
            except OSError:  # the client left, or the test ends
                continue

    def _answer(self, client: socket.socket) -> None:
        """Answer requests up to and including PLAY."""
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                part = client.recv(4096)
                if not part:
                    raise ConnectionError
                received += part
            request, _, received = received.partition(b"\r\n\r\n")
            lines = request.decode().split("\r\n")
            method = lines[0].split()[0]
            headers = dict(line.split(": ", 1) for line in lines[1:])
            answer, body = {"CSeq": headers["CSeq"], "Session": "1"}, b""
            if method == "OPTIONS":
                answer["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif method == "DESCRIBE":
                body = self._description()
                answer |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
            elif method == "SETUP":
                answer["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
            client.sendall(f"RTSP/1.0 200 OK\r\n{head}\r\n".encode() + body)
            if method == "PLAY":
                return

    def _description(self) -> bytes:
        sets = [nal for nal in _nals(self._frames[0].data) if nal[0] & 31 in (7, 8)]
        sprop = ",".join(base64.b64encode(nal).decode() for nal in sets)
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            f"c=IN IP4 0.0.0.0\r\na=rtpmap:96 H264/{CLOCK_HZ}\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sprop}\r\na=control:track1\r\n"
        ).encode()

    def _send(self, client: socket.socket) -> None:
        start_s, number = time.monotonic(), 0
        for frame in self._frames:
            if self._stop.wait(max(0.0, start_s + frame.at_s - time.monotonic())):
                return
            stamp = round(frame.stamp_s * CLOCK_HZ) & 0xFFFFFFFF
            payloads = [part for nal in _nals(frame.data) for part in _payloads(nal)]
            for index, payload in enumerate(payloads):
                marker = 0x80 if index == len(payloads) - 1 else 0
                packet = struct.pack(">BBHII", 0x80, 96 | marker, number & 0xFFFF, stamp, 1) + payload
                client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                number += 1


def _nals(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of data with start codes."""
    for part in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1"):
        if part:
            yield part


def _payloads(nal: bytes) -> Iterator[bytes]:
    """Yield the RTP payloads of one NAL unit: itself, or its fragments (RFC 6184, FU-A)."""
    if len(nal) <= MAX_PAYLOAD:
        yield nal
        return
    parts = [nal[1 + at : 1 + at + MAX_PAYLOAD] for at in range(0, len(nal) - 1, MAX_PAYLOAD)]
    for index, part in enumerate(parts):
        flags = (0x80 if index == 0 else 0) | (0x40 if index == len(parts) - 1 else 0)
        yield bytes([nal[0] & 0x60 | 28, flags | nal[0] & 31]) + part
