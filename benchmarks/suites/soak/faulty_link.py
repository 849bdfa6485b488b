"""Network between an RTSP camera and its client that changes time stamps, loses packets or pauses.

    with FaultyLink(camera.port) as link:
        link.drop = 0.1                    # a tenth of the RTP packets is lost
        read(f"rtsp://127.0.0.1:{link.port}/cam")

GStreamer's server sends correct time stamps and complete data only. Understands RTSP over TCP.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from types import TracebackType
from typing import Self

CLOCK_HZ = 90_000  # of RTP time stamps of video
RTP_HEADER = 12
FRAME_HEADER = 4


class FaultyLink:
    """TCP proxy in front of an RTSP camera.

    Args:
        port: Port of the camera on this machine.
        seed: Seed of the random losses.

    Attributes:
        port: Port of the proxy.
        drop: Share of the RTP packets that are lost, 0..1.
        garble: Share of the RTP packets whose payload is overwritten, 0..1.
        shift_s: Seconds added to all RTP time stamps.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.drop = 0.0
        self.garble = 0.0
        self.shift_s = 0.0
        self._camera_port = port
        self._random = random.Random(seed)
        self._open = threading.Event()
        self._open.set()
        self._stop = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._open.set()
        _close(self._server, *self._sockets)
        for thread in self._threads:
            thread.join(5.0)

    def pause(self) -> None:
        """Let nothing from the camera through until `resume`; it arrives late then."""
        self._open.clear()

    def resume(self) -> None:
        """Let everything through."""
        self._open.set()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="faulty link", daemon=True)  # type: ignore[arg-type]
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                camera = socket.create_connection(("127.0.0.1", self._camera_port), timeout=5.0)
            except OSError:
                _close(client)
                continue
            camera.settimeout(None)
            self._sockets |= {client, camera}
            self._start(self._forward_requests, client, camera)
            self._start(self._forward_media, camera, client)

    def _forward_requests(self, client: socket.socket, camera: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                camera.sendall(data)
        self._end(client, camera)

    def _forward_media(self, camera: socket.socket, client: socket.socket) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := camera.recv(65536):
                self._open.wait()
                ready, buffer = self._split(buffer + data)
                client.sendall(ready)
        self._end(client, camera)

    def _end(self, *sockets: socket.socket) -> None:
        _close(*sockets)
        self._sockets -= set(sockets)

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what can be sent on, and the beginning of an incomplete part."""
        ready = bytearray()
        while data:
            if data[:1] != b"$":
                # A response, up to the next packet.
                end = data.find(b"$")
                end = len(data) if end < 0 else end
                ready += data[:end]
                data = data[end:]
                continue
            if len(data) < FRAME_HEADER:
                break
            channel, length = struct.unpack(">xBH", data[:FRAME_HEADER])
            if len(data) < FRAME_HEADER + length:
                break
            packet, data = data[: FRAME_HEADER + length], data[FRAME_HEADER + length :]
            ready += packet if channel % 2 else self._changed(packet)
        return bytes(ready), data

    def _changed(self, packet: bytes) -> bytes:
        """Return an RTP packet as it arrives; empty if it is lost."""
        if self._random.random() < self.drop:
            return b""
        changed = bytearray(packet)
        if self.shift_s and len(packet) >= FRAME_HEADER + RTP_HEADER:
            at = FRAME_HEADER + 4
            (stamp,) = struct.unpack_from(">I", changed, at)
            struct.pack_into(">I", changed, at, (stamp + round(self.shift_s * CLOCK_HZ)) & 0xFFFFFFFF)
        if self._random.random() < self.garble:
            start = FRAME_HEADER + RTP_HEADER + 2
            changed[start:] = self._random.randbytes(max(0, len(changed) - start))
        return bytes(changed)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
