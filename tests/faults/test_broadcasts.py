"""Faults of broadcasts and downloads on a web server: whether a source has an end is decided by its answer.

A publisher that dies leaves a playlist with its last segments. They are not shown a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest

from streams.input.capture.interface import Timeouts
from streams.input.events import Connected, Disconnected, Ended, Event
from streams.input.reader import Reader
from tests.support.reading import TIMEOUT_S, Events, frames_of, reading

FPS = 25
SEGMENTS = 8
TIMEOUTS = Timeouts(read_s=1.5, segment_s=1.0)
HEADER = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
END = "#EXT-X-ENDLIST\n"


class WebServer:
    """Server of contents that a test changes; without a length, as for a camera, where that is asked for."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.without_length: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = outer.contents.get(self.path)
                self.send_response(404 if content is None else 200)
                if content is not None and self.path not in outer.without_length:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def list_segments(self, first: int, last: int, *, end: bool = False) -> None:
        """Publish the playlist of segments `first` to `last`, without the latter."""
        entries = "".join(f"#EXTINF:1.0,\nseg{number}.ts\n" for number in range(first, last))
        self.contents["/live.m3u8"] = (HEADER.format(first=first) + entries + END * end).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT_S)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Segments of one second, and all of them in one file; brightness is the index of the frame."""
    folder = tmp_path_factory.mktemp("hls")
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_filename": str(folder / "seg%d.ts")}
    with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as output:
        stream = output.add_stream("libx264", rate=FPS, options={"g": str(FPS), "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(SEGMENTS * FPS):
            grey = 20 + 2 * (index % 100)
            image = av.VideoFrame.from_ndarray(np.full((240, 320, 3), grey, np.uint8), format="rgb24")
            image.pts = index
            output.mux(stream.encode(image))
        output.mux(stream.encode(None))
    contents = {f"/{path.name}": path.read_bytes() for path in folder.glob("*.ts")}
    contents["/all"] = b"".join(contents[f"/seg{number}.ts"] for number in range(SEGMENTS))
    return contents


@pytest.fixture
def server(segments: dict[str, bytes]) -> Iterator[WebServer]:
    server = WebServer()
    server.contents.update(segments)
    yield server
    server.close()


def take_until(event: type[Event], reader: Reader, events: Events) -> list[float]:
    """Take samples until an event of a type arrives; return their media times."""
    times = []
    while not any(isinstance(received, event) for received in events.received):
        if frame := reader.next(0.05):
            times.append(frame.pts_s)
    while frame := reader.next(0.05):
        times.append(frame.pts_s)
    return times


@pytest.mark.parametrize("end", [False, True], ids=["its publisher is killed", "its publisher ends it"])
def test_a_broadcast_that_stops_is_tried_again(server: WebServer, end: bool) -> None:
    """HLS without new segments is disconnected, never ended; what was shown is not shown again."""
    server.list_segments(0, 4)
    with reading(server.url("/live.m3u8"), timeouts=TIMEOUTS) as (reader, events):
        events.wait_for(Connected)
        server.list_segments(0, 4, end=end)
        before = take_until(Disconnected, reader, events)
        assert before == sorted(before)
        assert len(before) >= 20  # the last three segments, at 8 samples a second
        for _ in range(2):
            events.wait_for(Disconnected)
        assert reader.next(0) is None
        server.list_segments(4, 8)
        events.wait_for(Connected)
        frame = reader.next(TIMEOUT_S)
        assert frame is not None
        assert frame.pts_s > before[-1]
    assert not any(isinstance(event, Ended) for event in events.received)


def test_a_broadcast_that_starts_late_is_waited_for(server: WebServer) -> None:
    """A playlist without segments, which a publisher may leave, is tried again."""
    server.list_segments(0, 0)
    with reading(server.url("/live.m3u8"), timeouts=TIMEOUTS) as (reader, events):
        events.wait_for(Disconnected)
        server.list_segments(0, 4)
        events.wait_for(Connected)
        assert reader.next(TIMEOUT_S) is not None


def test_a_segment_that_comes_late_is_no_interruption(server: WebServer) -> None:
    """Between segments there is silence that is longer than that of a camera may be."""
    server.list_segments(0, 3)
    with reading(server.url("/live.m3u8"), timeouts=Timeouts(segment_s=8.0)) as (reader, events):
        events.wait_for(Connected)
        times: list[float] = []
        while frame := reader.next(2.0):  # longer than a camera may be silent
            times.append(frame.pts_s)
        server.list_segments(0, 5)
        following = reader.next(TIMEOUT_S)
        assert following is not None
        assert following.pts_s - times[-1] < 0.2
        assert following.segment == 1
    assert not any(isinstance(event, Disconnected) for event in events.received)


@pytest.mark.parametrize("path", ["/live.m3u8", "/all"], ids=["playlist of a film", "file without a suffix"])
def test_a_source_with_an_end_ends(server: WebServer, path: str) -> None:
    """No sample of it is lost, however slow the consumer is."""
    server.list_segments(0, SEGMENTS, end=True)
    with reading(server.url(path), timeouts=TIMEOUTS) as (reader, events):
        frames = list(frames_of(reader))
    assert [round((frame.pts_s - frames[0].pts_s) * FPS) for frame in frames][:4] == [0, 3, 6, 9]
    assert abs(len(frames) - SEGMENTS * 8) <= 1
    assert isinstance(events.received[-1], Ended)
    assert reader.losses.total == 0


def test_a_camera_with_the_name_of_a_file_is_tried_again(
    server: WebServer, segments: dict[str, bytes]
) -> None:
    """A stream of bytes without a length has no end, whatever its address looks like."""
    server.contents["/camera.mp4"] = segments["/all"]
    server.without_length.add("/camera.mp4")
    with reading(server.url("/camera.mp4"), timeouts=TIMEOUTS) as (_, events):
        for _ in range(2):
            events.wait_for(Connected)
            events.wait_for(Disconnected)
    assert not any(isinstance(event, Ended) for event in events.received)
