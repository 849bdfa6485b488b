"""Live cameras from a video file: a process that encodes the file once and sends it in a loop.

    with Cameras(Path("face.mp4"), height=720) as cameras:
        sources = [cameras.source(number) for number in range(4)]

Each connection is one camera: H.264 without B-frames, one keyframe per second, FLV over TCP in real time. The
cameras differ in phase, both in content and in time, like real ones. They run in another process, so that
their CPU time is counted separately.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import av
import numpy as np
from av.packet import Packet

from benchmarks.harness.errors import HelperFailed
from streams.input.address import Address
from streams.input.source import Source

# Only the beginning of a longer file is sent.
CLIP_S = 10.0
ENCODE_S = 180.0
# Golden ratio, which spreads the phases of any number of cameras evenly.
GOLDEN = 0.6180339887
PHASE_S = 0.125
OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
# FFmpeg would otherwise read five seconds to look for an audio stream.
READING = MappingProxyType({"analyzeduration": "200000"})


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Video that the cameras send.

    Args:
        port: TCP port of the cameras.
        width: Width in pixels.
        height: Height in pixels.
        fps: Frames per second.
    """

    port: int
    width: int
    height: int
    fps: float


class Cameras:
    """Any number of live cameras in another process. A context manager; entering waits for the encoding.

    Args:
        path: Video file.
        height: Height to scale it to, in pixels; None for its own.
        tiles: Number of copies of the video in each frame, to have more faces. A copy that is wider than its
            tile shows its middle.

    Raises:
        HelperFailed: On entering: the file cannot be read or encoded.
    """

    footage: Footage

    def __init__(self, path: Path, *, height: int | None = None, tiles: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._path = path
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_main, args=(self._theirs, path, height, tiles), name="cameras", daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        try:
            if not self._pipe.poll(ENCODE_S):
                raise HelperFailed("cameras", f"not ready within {ENCODE_S:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise HelperFailed("cameras", "their process ended") from error
        except HelperFailed:
            self._end()
            raise
        if not isinstance(answer, Footage):
            self._end()
            raise HelperFailed("cameras", str(answer), "give another video")
        self.footage = answer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def source(self, number: int) -> Source:
        """Return a source that reads one camera.

        Args:
            number: Index of the camera, for its name.
        """
        return camera_source(self._path, self.footage, number)

    def _end(self) -> None:
        # Closing the pipe ends the process; its threads are daemons.
        self._pipe.close()
        self._process.join(3.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def camera_source(path: Path, footage: Footage, number: int) -> Source:
    """Return a source that reads one camera, in any process of this machine.

    Args:
        path: Video file, for the shown name.
        footage: What the cameras send.
        number: Index of the camera, for its name.
    """
    return Source(
        address=Address(
            f"tcp://127.0.0.1:{footage.port}",
            shown=f"{path.name} at {footage.height}p",
            name=f"camera-{number + 1}",
        ),
        format="flv",
        options=READING,
        live=True,
        kind="url",
    )


@dataclass(frozen=True)
class _EncodedClip:
    """Encoded frames of the clip, and the indices of the keyframes."""

    frames: tuple[bytes, ...]
    keyframes: tuple[int, ...]
    fps: Fraction
    template: Path


def _main(pipe: Connection, path: Path, height: int | None, tiles: int) -> None:
    with tempfile.TemporaryDirectory(prefix="unmask-cameras-") as folder, suppress(KeyboardInterrupt):
        clip_path = Path(folder) / "clip.mp4"
        try:
            width, height, fps = _encode(path, clip_path, height, tiles)
            clip = _read_clip(clip_path, fps)
        except (av.FFmpegError, OSError, ValueError) as error:
            with suppress(OSError):
                pipe.send(f"{path}: {error}")
            return
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            port = listener.getsockname()[1]
            threading.Thread(target=_accept, args=(listener, clip), daemon=True).start()
            with suppress(EOFError, OSError):
                pipe.send(Footage(port=port, width=width, height=height, fps=float(fps)))
                pipe.recv()


def _encode(path: Path, out: Path, height: int | None, tiles: int) -> tuple[int, int, Fraction]:
    """Encode the beginning of a file like a camera; return width, height and frame rate."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        if not source.streams.video:
            raise ValueError("it has no video")
        video = source.streams.video[0]
        video.thread_type = "AUTO"
        fps = Fraction(video.average_rate or video.guessed_rate or 25).limit_denominator(1001)
        out_height = 2 * round((height or video.height) / 2)
        out_width = 2 * round(video.width * out_height / video.height / 2)
        stream = target.add_stream("libx264", rate=fps, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = out_width, out_height, "yuv420p"
        stream.codec_context.gop_size = max(1, round(fps))
        stream.codec_context.max_b_frames = 0
        for index, frame in enumerate(source.decode(video)):
            if index >= CLIP_S * fps:
                break
            scaled = _tiled(frame, out_width, out_height, tiles)
            scaled.pts, scaled.time_base = index, 1 / fps
            target.mux(stream.encode(scaled))
        target.mux(stream.encode(None))
    return out_width, out_height, fps


def _tiled(frame: av.VideoFrame, width: int, height: int, tiles: int) -> av.VideoFrame:
    """Return a frame that shows several copies of another, in up to twice as many columns as rows."""
    if tiles == 1:
        return frame.reformat(width, height, "yuv420p")
    columns = 2 ** math.ceil(math.log2(tiles) / 2)
    rows = math.ceil(tiles / columns)
    tile_width, tile_height = width // columns, height // rows
    scale = max(tile_width / frame.width, tile_height / frame.height)
    copy_width, copy_height = math.ceil(frame.width * scale), math.ceil(frame.height * scale)
    left, top = (copy_width - tile_width) // 2, (copy_height - tile_height) // 2
    copy = frame.reformat(copy_width, copy_height, "rgb24").to_ndarray()
    tile = copy[top : top + tile_height, left : left + tile_width]
    whole = np.zeros((height, width, 3), np.uint8)
    for number in range(tiles):
        y, x = number // columns * tile_height, number % columns * tile_width
        whole[y : y + tile_height, x : x + tile_width] = tile
    return av.VideoFrame.from_ndarray(whole, format="rgb24").reformat(format="yuv420p")


def _read_clip(path: Path, fps: Fraction) -> _EncodedClip:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    if not packets:
        raise ValueError("it has no frames")
    return _EncodedClip(
        frames=tuple(map(bytes, packets)),
        keyframes=tuple(index for index, packet in enumerate(packets) if packet.is_keyframe),
        fps=fps,
        template=path,
    )


def _accept(listener: socket.socket, clip: _EncodedClip) -> None:
    for number in itertools.count():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_send, args=(connection, clip, number), daemon=True).start()


class _Sink:
    """Socket with the `write` method that PyAV needs."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


def _send(connection: socket.socket, clip: _EncodedClip, number: int) -> None:
    """Send frames until the reader disconnects, starting at a keyframe of this camera's own."""
    share = number * GOLDEN % 1
    first = clip.keyframes[int(share * len(clip.keyframes))]
    time.sleep(share * PHASE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sink: Any = _Sink(connection)
    # Every connection ends with an error here, when the reader disconnects.
    with (
        suppress(OSError, av.FFmpegError),
        connection,
        av.open(str(clip.template)) as template,
        av.open(sink, "w", format="flv", options={"flush_packets": "1"}) as container,
    ):
        stream = container.add_stream_from_template(template.streams.video[0])
        started = time.monotonic()
        keyframes = frozenset(clip.keyframes)
        for sent in itertools.count():
            time.sleep(max(0.0, started + float(sent / clip.fps) - time.monotonic()))
            index = (first + sent) % len(clip.frames)
            packet: Any = Packet(clip.frames[index])
            packet.stream = stream
            packet.time_base = 1 / clip.fps
            packet.pts = packet.dts = sent
            packet.is_keyframe = index in keyframes
            container.mux_one(packet)
