"""Faults: sources that FFmpeg cannot open as they are. The message names the cause and what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceNotVideo
from tests.support.reading import failure_of, frames_of, reading, take


@contextmanager
def web_server(content: bytes, *, seekable: bool) -> Iterator[str]:
    """Serve one content under any path; without ranges, a client cannot seek in it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = 0
            requested = self.headers.get("Range")
            if seekable and requested:
                start = int(requested.removeprefix("bytes=").partition("-")[0])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            try:
                self.wfile.write(content[start:])
            except ConnectionError:
                return

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_mp4_with_its_index_at_the_end_needs_a_server_that_seeks(clip: Path) -> None:
    """Where the server can seek the file is read; where it cannot the message says so."""
    content = clip.read_bytes()
    index = content.index(b"moov") - 4
    assert index > content.index(b"mdat")
    # Longer than what FFmpeg keeps of a stream to go back in it.
    filler = (5_000_000).to_bytes(4, "big") + b"free" + bytes(5_000_000 - 8)
    content = content[:index] + filler + content[index:]
    with web_server(content, seekable=True) as url, reading(f"{url}/clip.mp4") as (reader, _):
        assert len(list(frames_of(reader))) > 20
    with web_server(content, seekable=False) as url:
        error = failure_of(f"{url}/clip.mp4")
    assert type(error) is SourceNotVideo
    assert "cannot seek" in str(error)
    assert "faststart" in str(error)


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        pytest.param(
            "srt://127.0.0.1:9?passphrase=x",
            SourceInvalid,
            "no support for srt://",
            id="FFmpeg without libsrt",
        ),
        pytest.param(
            "/dev/v4l/by-id/usb-none", SourceMissing, "no such camera", id="stable webcam name, unplugged"
        ),
        pytest.param("/dev/video97", SourceMissing, "no such camera", id="webcam by its device, unplugged"),
    ],
)
def test_sources_that_cannot_be_opened(source: str, kind: type[SourceError], words: str) -> None:
    """The source is not called an empty file, nor an unknown kind of address."""
    error = failure_of(source)
    assert type(error) is kind
    assert words in str(error)


def test_a_session_description_is_received(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """RTP described by an `.sdp` file is a live source: it is not a file that FFmpeg cannot read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1] & ~1
    description = tmp_path / "camera.sdp"
    description.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=camera\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 MP4V-ES/90000\n"
        "a=fmtp:96 profile-level-id=1;"
        "config=000001B001000001B58913000001000000012000C48D8800CD0A04160443000001B2\n"
    )
    stop = threading.Event()
    sender = threading.Thread(target=_send_rtp, args=(port, stop))
    sender.start()
    try:
        with reading(description) as (reader, _):
            assert take(reader).image.width == 320
    finally:
        stop.set()
        sender.join()


def _send_rtp(port: int, stop: threading.Event) -> None:
    with av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp") as container:
        stream = container.add_stream("mpeg4", rate=25, width=320, height=240)
        number = 0
        while not stop.wait(0.02):
            frame = av.VideoFrame(320, 240, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number % 256]) * plane.buffer_size)
            frame.pts = number
            number += 1
            container.mux(stream.encode(frame))
