"""Tests of the reader on live sources: an RTSP camera, the demo, and servers that do not respond."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest

from benchmarks.helpers.rtsp_process import RtspProcess
from streams.errors import SourceMissing, SourceUnauthorized, SourceUnavailable
from streams.input.capture.interface import Timeouts
from streams.input.events import Connected, Connecting, Disconnected, Ended, Failed
from streams.input.frame_queue import MAX_WAIT_S
from tests.support.reading import SHORT_BACKOFF, TIMEOUT_S, failure_of, reading, take

IndexOf = Callable[[av.VideoFrame], int]
MakeVideo = Callable[..., Path]
StartCamera = Callable[..., RtspProcess]


def test_the_demo_is_read_as_a_live_source() -> None:
    """The built-in demo is live: its frames have capture times."""
    with reading("demo") as (reader, events):
        first, second = take(reader), take(reader)
        assert events.wait_for(Connected) == Connected(first.width, first.height, 25.0)
    assert first.captured is not None
    assert second.captured is not None
    assert second.captured > first.captured


def test_a_camera_is_read_live(rtsp_server: StartCamera, clip: Path, index_of: IndexOf) -> None:
    """Frames of a camera have consistent media times and a capture time in the past."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, events):
        assert events.wait_for(Connected) == Connected(320, 240, 25.0)
        frames = [take(reader) for _ in range(6)]
    for a, b in itertools.pairwise(frames):
        assert (index_of(b.image) - index_of(a.image)) % 100 == round((b.pts_s - a.pts_s) * 25)
        assert b.pts > a.pts
    assert {(frame.connection, frame.segment) for frame in frames} == {(1, 1)}
    for frame in frames:
        assert frame.captured is not None
        assert frame.captured < time.time()
    assert Ended() not in events.received


def test_a_camera_with_b_frames(
    rtsp_server: StartCamera, tmp_path: Path, make_video: MakeVideo, index_of: IndexOf
) -> None:
    """Frames are delivered in presentation order, also when the camera's video starts again."""
    server = rtsp_server(make_video(tmp_path / "clip.mp4", frames=25, b_frames=2))
    with reading(server.url()) as (reader, _):
        # The first frames after joining may lack their reference frames.
        frames = [take(reader) for _ in range(16)][4:]
        assert reader.corrupt == 0
    for a, b in itertools.pairwise(frames):
        assert (index_of(b.image) - index_of(a.image)) % 25 == round((b.pts_s - a.pts_s) * 25)
        assert b.pts > a.pts


def test_a_camera_over_udp(rtsp_server: StartCamera, clip: Path) -> None:
    """A camera can be read over UDP."""
    server = rtsp_server(clip)
    with reading(server.url(), rtsp_transport="udp") as (reader, _):
        assert take(reader).width == 320


def test_a_killed_server_is_retried_until_it_returns(rtsp_server: StartCamera, clip: Path) -> None:
    """The reader reports a lost connection, retries while refused, and continues with a gap."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, events):
        segment = take(reader).segment
        server.kill()
        disconnected = events.wait_for(Disconnected)
        assert isinstance(disconnected.error, SourceUnavailable)
        assert 0 < disconnected.retry_in_s <= SHORT_BACKOFF.max_s
        assert "refused" in str(events.wait_for(Disconnected).error)
        while frame := reader.next(0):  # samples read before
            segment = frame.segment
        server.start()
        events.wait_for(Connected)
        frame = take(reader)
        assert (frame.connection, frame.segment) == (2, segment + 1)
        assert reader.error is None
    assert Connecting(2) in events.received
    assert not any(isinstance(event, Ended | Failed) for event in events.received)


def test_a_silent_camera_is_disconnected(rtsp_server: StartCamera, clip: Path) -> None:
    """A camera that sends nothing over an open connection times out, and is read again when it resumes."""
    server = rtsp_server(clip)
    with reading(server.url(), timeouts=Timeouts(open_s=5, read_s=0.5)) as (reader, events):
        take(reader)
        server.freeze()
        disconnected = events.wait_for(Disconnected)
        server.thaw()
        assert isinstance(disconnected.error, SourceUnavailable)
        assert "for 0.5 s" in str(disconnected.error)
        events.wait_for(Connected)


def test_a_reader_of_a_silent_camera_can_be_stopped(rtsp_server: StartCamera, clip: Path) -> None:
    """A reader that waits for the next packet ends within its read timeout and leaves no thread."""
    server = rtsp_server(clip)
    with reading(server.url(), timeouts=Timeouts(read_s=0.5)) as (reader, _):
        take(reader)
        server.freeze()
        reader.stop()
        assert "reader cam" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_camera_with_authentication(rtsp_server: StartCamera, clip: Path, auth: str) -> None:
    """The right password opens the camera; a wrong one or none is a permanent error."""
    password = "p@ss/w:rd#1"
    server = rtsp_server(clip, auth=auth, user="ada", password=password)
    with reading(server.url(user="ada", password=password)) as (reader, _):
        assert take(reader).width == 320
    for url in (server.url(user="ada", password="wr0ng"), server.url()):
        error = failure_of(url)
        assert isinstance(error, SourceUnauthorized)
        assert "401" in str(error)
        assert "wr0ng" not in f"{error}{error!r}{error.__context__!r}"


def test_a_wrong_path_fails(rtsp_server: StartCamera, clip: Path) -> None:
    """A path that the camera does not have is a permanent error."""
    error = failure_of(rtsp_server(clip).url("/nope"))
    assert isinstance(error, SourceMissing)
    assert "404" in str(error)


def test_a_slow_consumer_loses_samples_instead_of_lagging(rtsp_server: StartCamera, clip: Path) -> None:
    """A consumer that pauses loses samples and then gets new ones, not old ones."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, _):
        before = take(reader)
        dropped_before = reader.losses.queue
        deadline_s = time.monotonic() + TIMEOUT_S
        while reader.losses.queue < dropped_before + 10 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        after = take(reader)
        waiting = sum(1 for _ in iter(lambda: reader.next(0), None))
    assert after.segment > before.segment
    assert after.pts_s - before.pts_s >= 0.5
    assert waiting <= MAX_WAIT_S * 8


def test_frames_split_by_the_server_are_joined(
    rtsp_server: StartCamera, tmp_path: Path, make_video: MakeVideo
) -> None:
    """Parameter sets before every slice, an option of GStreamer's payloader, do not split frames."""
    video = make_video(tmp_path / "slices.mp4", frames=100, options={"x264-params": "slices=4"})
    server = rtsp_server(video, headers_per_slice=True)
    with reading(server.url()) as (reader, _):
        for _ in range(8):
            luma = take(reader).image.to_ndarray(format="gray8")
            assert int(luma.max()) - int(luma.min()) <= 2
        assert reader.corrupt == 0


def test_an_http_camera_is_live(make_video: MakeVideo, tmp_path: Path) -> None:
    """The frames of a multipart JPEG stream have capture times, and its end is a lost connection."""
    path = make_video(tmp_path / "clip.mjpeg", frames=50, codec="mjpeg", options={"strict": "-1"})
    images = [b"\xff\xd8" + rest for rest in path.read_bytes().split(b"\xff\xd8")[1:]]

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for image in images:
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                self.wfile.write(head.encode() + image + b"\r\n")
                time.sleep(0.01)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with reading(f"http://127.0.0.1:{server.server_port}/video") as (reader, events):
            frame = take(reader)
            assert frame.captured is not None
            assert isinstance(events.wait_for(Disconnected).error, SourceUnavailable)
        server.shutdown()
        thread.join()


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Accept connections on a port and never respond."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_an_unresponsive_host_times_out() -> None:
    """A server that accepts connections without responding is retried; attempts are counted."""
    with listening() as server:
        url = f"rtsp://ada:s3cret@127.0.0.1:{server.getsockname()[1]}/cam"
        with reading(url, timeouts=Timeouts(open_s=0.2)) as (_, events):
            first, second = events.wait_for(Disconnected), events.wait_for(Disconnected)
    assert "no answer within 0.2 s" in str(first.error)
    assert isinstance(second.error, SourceUnavailable)
    assert "s3cret" not in repr(events.received)
    assert [event for event in events.received if isinstance(event, Connecting)][:2] == [
        Connecting(1),
        Connecting(2),
    ]


def test_a_reader_can_be_stopped_during_a_connection_attempt() -> None:
    """`stop` returns before the attempt times out, and no further event is reported."""
    with listening() as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        with reading(url, timeouts=Timeouts(open_s=4.0)) as (reader, events):
            events.wait_for(Connecting)
            started_s = time.monotonic()
            reader.stop()
            assert time.monotonic() - started_s < 3.0
        assert events.received == [Connecting(1)]


def test_a_program_can_exit_during_a_connection_attempt() -> None:
    """A thread that is still inside FFmpeg neither delays nor crashes the exit."""
    program = (
        "import sys, threading\n"
        "from streams.input.reader import open_reader\n"
        "from streams.input.source import parse_source\n"
        "connecting = threading.Event()\n"
        "source = parse_source(sys.argv[1])\n"
        "with open_reader(source, sample_hz=8, on_event=lambda _: connecting.set()):\n"
        "    connecting.wait()\n"
    )
    with listening() as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        done = subprocess.run(
            [sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_retry_is_a_choice() -> None:
    """A refused connection is tried again, unless `retry` forbids it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"http://127.0.0.1:{port}/clip.mp4"
    error = failure_of(url, retry=False)
    assert isinstance(error, SourceUnavailable)
    assert "refused" in str(error)
    with reading(url) as (_, events):
        events.wait_for(Disconnected)
        events.wait_for(Disconnected)
