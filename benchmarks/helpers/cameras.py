"""Live cameras out of a file: a process that encodes it once as a camera would and sends it over and over.

    with Cameras(Path("face.mp4"), height=720) as cameras:
        sources = [cameras.source(number) for number in range(4)]

Each connection is one camera: H.264 without B-frames, a keyframe a second, FLV over TCP at its own pace. The
cameras are out of phase with each other, in content and in time, as real ones are. They share the
machine with what they are watched by; what they cost is told apart by the process.
"""

from __future__ import annotations

import itertools
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
from av.packet import Packet

from benchmarks.harness.errors import HelperFailed
from streams.input.address import Address
from streams.input.source import Source

# Of a longer file only the beginning is sent.
CLIP_S = 10.0
ENCODE_S = 180.0
# The share of a circle that never lets two cameras fall into step.
GOLDEN = 0.6180339887
PHASE_S = 0.125
OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
# FFmpeg would otherwise wait for five seconds of video, in case that sound comes with it.
READING = MappingProxyType({"analyzeduration": "200000"})


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Describes what the cameras send.

    Args:
        port: Where they are to be reached.
        width: In pixels.
        height: In pixels.
        fps: Pictures a second.
    """

    port: int
    width: int
    height: int
    fps: float


class Cameras:
    """Any number of live cameras in another process, as a context manager; entering waits for the encoding.

    Args:
        path: A video file.
        height: To which it is scaled, in pixels; None for its own.

    Raises:
        HelperFailed: On entering: the file cannot be read or encoded.
    """

    footage: Footage

    def __init__(self, path: Path, *, height: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._path = path
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_main, args=(self._theirs, path, height), name="cameras", daemon=True
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
            raise HelperFailed("cameras", str(answer))
        self.footage = answer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def source(self, number: int) -> Source:
        """Give one of the cameras as a source to watch.

        Args:
            number: Any; for its name only.
        """
        return Source(
            address=Address(
                f"tcp://127.0.0.1:{self.footage.port}",
                shown=f"{self._path.name} at {self.footage.height}p",
                name=f"camera-{number + 1}",
            ),
            format="flv",
            options=READING,
            live=True,
            kind="url",
        )

    def _end(self) -> None:
        # Closing the pipe is what ends it; its threads are daemons.
        self._pipe.close()
        self._process.join(3.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@dataclass(frozen=True)
class _Coded:
    """The pictures of the clip as they are sent, with their numbers in it."""

    pictures: tuple[bytes, ...]
    keyframes: tuple[int, ...]
    fps: Fraction
    template: Path


def _main(pipe: Connection, path: Path, height: int | None) -> None:
    with tempfile.TemporaryDirectory(prefix="unmask-cameras-") as folder, suppress(KeyboardInterrupt):
        clip = Path(folder) / "clip.mp4"
        try:
            width, height, fps = _encode(path, clip, height)
            coded = _coded(clip, fps)
        except (av.FFmpegError, OSError, ValueError) as error:
            with suppress(OSError):
                pipe.send(f"{path}: {error}")
            return
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            port = listener.getsockname()[1]
            threading.Thread(target=_accept, args=(listener, coded), daemon=True).start()
            with suppress(EOFError, OSError):
                pipe.send(Footage(port=port, width=width, height=height, fps=float(fps)))
                pipe.recv()


def _encode(path: Path, out: Path, height: int | None) -> tuple[int, int, Fraction]:
    """Encode the beginning of a file as a camera would; give its size and rate."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        if not source.streams.video:
            raise ValueError("there is no video in it")
        film = source.streams.video[0]
        film.thread_type = "AUTO"
        fps = Fraction(film.average_rate or film.guessed_rate or 25).limit_denominator(1001)
        high = 2 * round((height or film.height) / 2)
        wide = 2 * round(film.width * high / film.height / 2)
        stream = target.add_stream("libx264", rate=fps, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        stream.codec_context.gop_size = max(1, round(fps))
        stream.codec_context.max_b_frames = 0
        for index, picture in enumerate(source.decode(film)):
            if index >= CLIP_S * fps:
                break
            scaled = picture.reformat(wide, high, "yuv420p")
            scaled.pts, scaled.time_base = index, 1 / fps
            target.mux(stream.encode(scaled))
        target.mux(stream.encode(None))
    return wide, high, fps


def _coded(clip: Path, fps: Fraction) -> _Coded:
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    if not packets:
        raise ValueError("there are no pictures in it")
    return _Coded(
        pictures=tuple(map(bytes, packets)),
        keyframes=tuple(index for index, packet in enumerate(packets) if packet.is_keyframe),
        fps=fps,
        template=clip,
    )


def _accept(listener: socket.socket, coded: _Coded) -> None:
    for number in itertools.count():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_film, args=(connection, coded, number), daemon=True).start()


class _Sink:
    """A socket as PyAV wants to write to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


def _film(connection: socket.socket, coded: _Coded, number: int) -> None:
    """Send pictures, from a keyframe of this camera's own on, until nobody takes them any more."""
    share = number * GOLDEN % 1
    first = coded.keyframes[int(share * len(coded.keyframes))]
    time.sleep(share * PHASE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sink: Any = _Sink(connection)
    # Whoever watched has left, which is how every connection ends.
    with (
        suppress(OSError, av.FFmpegError),
        connection,
        av.open(str(coded.template)) as template,
        av.open(sink, "w", format="flv", options={"flush_packets": "1"}) as container,
    ):
        stream = container.add_stream_from_template(template.streams.video[0])
        started = time.monotonic()
        keyframes = frozenset(coded.keyframes)
        for sent in itertools.count():
            time.sleep(max(0.0, started + float(sent / coded.fps) - time.monotonic()))
            index = (first + sent) % len(coded.pictures)
            packet: Any = Packet(coded.pictures[index])
            packet.stream = stream
            packet.time_base = 1 / coded.fps
            packet.pts = packet.dts = sent
            packet.is_keyframe = index in keyframes
            container.mux_one(packet)
