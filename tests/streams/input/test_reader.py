"""Tests of the reader on real files and a real RTSP camera."""

from __future__ import annotations

import itertools
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import av
import numpy as np
import pytest

from streams.errors import (
    EndOfStream,
    SourceError,
    SourceMissing,
    SourceNotVideo,
    SourceUnauthorized,
    SourceUnavailable,
)
from streams.input.capture.interface import Timeouts
from streams.input.events import Connected, Connecting, Disconnected, Ended, Event, Failed, TooSlow
from streams.input.frame import Frame
from streams.input.reader import Backoff, Reader, open_reader
from streams.input.sampler import Sampler
from streams.input.source import parse_source

if TYPE_CHECKING:
    from tests.support.rtsp_process import RtspProcess

E = TypeVar("E", bound=Event)

IndexOf = Callable[[av.VideoFrame], int]
MakeVideo = Callable[..., Path]
Serve = Callable[..., "RtspProcess"]

QUICK = Backoff(first_s=0.05, max_s=0.2)
PATIENCE_S = 20.0  # for a slow day; what is waited for comes within a second or two


class Events:
    """Collects a reader's events and waits for one of a kind."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._queue: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._queue.put(event)

    def wait_for(self, kind: type[E]) -> E:
        """Return the next event of that kind."""
        while True:
            event = self._queue.get(timeout=PATIENCE_S)
            if isinstance(event, kind):
                return event


@contextmanager
def reading(text: str | Path, **options: object) -> Iterator[tuple[Reader, Events]]:
    """Read a source at 8 Hz with quick retries."""
    events = Events()
    transport = options.pop("rtsp_transport", "tcp")
    source = parse_source(str(text), rtsp_transport=transport)  # type: ignore[arg-type]
    settings = {"sample_hz": 8.0, "backoff": QUICK, **options}
    with open_reader(source, on_event=events, **settings) as reader:  # type: ignore[arg-type]
        yield reader, events


def frames_of(reader: Reader) -> Iterator[Frame]:
    """Take a finite source's samples up to its end."""
    while True:
        try:
            frame = reader.next(PATIENCE_S)
        except EndOfStream:
            return
        assert frame is not None
        yield frame


def take(reader: Reader) -> Frame:
    """Take the next sample."""
    frame = reader.next(PATIENCE_S)
    assert frame is not None
    return frame


def failure_of(text: str | Path, **options: object) -> SourceError:
    """Read a source that cannot be read and return its error."""
    with reading(text, **options) as (reader, events):
        error = events.wait_for(Failed).error
        with pytest.raises(EndOfStream) as caught:
            reader.next(0)
        assert caught.value.__cause__ is error
        assert reader.error is error
    assert not any(isinstance(event, Disconnected) for event in events.seen)
    return error


# --- what needs no source


def test_waits_double_up_to_a_limit() -> None:
    """Every failure doubles the wait; chance only shortens it."""
    backoff = Backoff(first_s=0.5, max_s=10.0, jitter=0.2)
    assert [backoff.delay_s(failures, 0.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert backoff.delay_s(1, 0.5) == pytest.approx(0.45)
    assert backoff.delay_s(10_000, 0.999) == pytest.approx(8.0, abs=0.01)


@pytest.mark.parametrize("wrong", [{"first_s": 0.0}, {"first_s": 20.0}, {"jitter": 1.5}])
def test_a_backoff_is_checked(wrong: dict[str, float]) -> None:
    """A wait of nothing, or of more than the most, is refused."""
    with pytest.raises(ValueError, match="must be in"):
        Backoff(**wrong)


@pytest.mark.parametrize("wrong", [{"open_s": 0.0}, {"read_s": 0.0}, {"read_s": 2.0}])
def test_timeouts_are_checked(wrong: dict[str, float]) -> None:
    """A read timeout that would hold up a stop is refused."""
    with pytest.raises(ValueError, match="must be"):
        Timeouts(**wrong)


# --- files


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_file_gives_every_due_frame_in_order(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, b_frames: int
) -> None:
    """Exactly the frames the sampler chooses come out, in order; a slow consumer loses none."""
    path = make_video(tmp_path / "clip.mp4", frames=100, b_frames=b_frames)
    sampler = Sampler(8.0)
    due = [index for index in range(100) if sampler.offer(index / 25)]
    with reading(path) as (reader, events):
        taken: list[Frame] = []
        for frame in frames_of(reader):
            if len(taken) < 3:
                time.sleep(0.05)  # the reader meets a full mailbox
            taken.append(frame)
    assert [index_of(frame.image) for frame in taken] == due
    start_s = taken[0].pts_s
    assert [round((frame.pts_s - start_s) * 25) for frame in taken] == due
    assert [frame.gap for frame in taken] == [True] + [False] * (len(due) - 1)
    assert all(frame.captured is None and frame.missed == 0 for frame in taken)
    assert all(frame.decode_ms >= 0 and (frame.width, frame.height) == (320, 240) for frame in taken)
    assert events.seen == [Connecting(1), Connected(320, 240, 25.0), Ended()]
    assert (reader.dropped, reader.corrupt, reader.error) == (0, 0, None)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".h264"])
def test_containers(tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, suffix: str) -> None:
    """Whatever the container, the frames and their rate are the same; a bare stream has no better clock."""
    path = make_video(tmp_path / f"clip{suffix}", frames=50)
    with reading(path) as (reader, _):
        indices = [index_of(frame.image) for frame in frames_of(reader)]
    assert indices[0] == 0
    assert len(indices) == 16
    assert max(b - a for a, b in itertools.pairwise(indices)) <= 4


def test_a_slow_source_is_reported(tmp_path: Path, make_video: MakeVideo) -> None:
    """A video of five frames a second is too slow for 8 Hz, and says so once."""
    path = make_video(tmp_path / "slow.mp4", frames=25, fps=5)
    with reading(path) as (reader, events):
        frames = list(frames_of(reader))
    (too_slow,) = [event for event in events.seen if isinstance(event, TooSlow)]
    assert too_slow.fps == pytest.approx(5.0)
    assert too_slow.needed_hz == pytest.approx(8 / 1.5)
    assert all(frame.gap for frame in frames)


def test_sound_beside_the_pictures_is_ignored(tmp_path: Path, make_video: MakeVideo) -> None:
    """A video with sound gives its pictures."""
    path = make_video(tmp_path / "talk.mp4", audio=True)
    with reading(path) as (reader, _):
        assert len(list(frames_of(reader))) == 16


def sound_only(path: Path) -> None:
    """Write a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))


def cover_only(path: Path) -> None:
    """Write a second of silence with a cover picture, as music files have."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("aac", rate=16000)
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("empty.mp4", lambda path: path.touch(), "the file is empty"),
        ("text.mp4", lambda path: path.write_text("dear diary\n" * 200), "not a video"),
        ("notes.txt", lambda path: path.write_text("dear diary\n" * 200), "text, not video"),
        ("noise.mkv", lambda path: path.write_bytes(bytes(range(256)) * 64), "not a video"),
        ("song.m4a", sound_only, "sound only"),
        ("cover.mp4", cover_only, "sound only"),
    ],
)
def test_what_is_no_video_fails_at_once(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    write: Callable[[Path], None],
    words: str,
) -> None:
    """A file without pictures is named as such, not tried again, and FFmpeg is silent."""
    write(tmp_path / name)
    error = failure_of(tmp_path / name, retry=True)
    assert isinstance(error, SourceNotVideo)
    assert words in str(error)
    assert str(error).startswith(str(tmp_path / name))
    assert capfd.readouterr() == ("", "")


def test_a_truncated_file_gives_what_it_has(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file cut off in its body ends normally with the pictures it has, and the loss is counted."""
    whole = make_video(tmp_path / "whole.mkv", frames=100).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) * 3 // 5])
    with reading(path) as (reader, events):
        indices = [index_of(frame.image) for frame in frames_of(reader)]
    assert 10 < len(indices) < 25
    assert indices == sorted(indices)
    assert events.seen[-1] == Ended()
    assert capfd.readouterr() == ("", "")


def test_a_file_cut_off_before_its_index_is_no_video(tmp_path: Path, make_video: MakeVideo) -> None:
    """An MP4 whose table of contents was never written cannot be read at all."""
    path = make_video(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[:5000])
    assert isinstance(failure_of(path), SourceNotVideo)


def test_damaged_pictures_are_counted_and_left_out(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bytes overwritten in the middle cost pictures, which are counted; what is given out is undamaged."""
    path = make_video(tmp_path / "clip.ts", frames=100, gop=5)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    for start in range(middle, middle + 188 * 40, 188):
        data[start + 20 : start + 180] = bytes(160)
    path.write_bytes(data)
    with reading(path) as (reader, events):
        indices = [index_of(frame.image) for frame in frames_of(reader)]
    assert reader.corrupt > 0
    assert len(indices) > 10
    assert indices == sorted(indices)
    assert events.seen[-1] == Ended()
    assert capfd.readouterr() == ("", "")


def rotated(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a display matrix into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    struct.pack_into(">9i", data, header + 4 + 40, *matrix)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "size", "bright"),
    [
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 240 << 16, 0, 1 << 30), (240, 320), "right"),
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 320 << 16, 240 << 16, 1 << 30), (320, 240), "bottom"),
        ((0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 320 << 16, 1 << 30), (240, 320), "left"),
    ],
)
def test_a_video_filmed_sideways_is_turned_upright(
    tmp_path: Path, matrix: tuple[int, ...], size: tuple[int, int], bright: str
) -> None:
    """The rotation a phone notes in the file is applied: 90 degrees clockwise, 180, 270."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        picture = np.zeros((240, 320, 3), np.uint8)
        picture[:120] = 255  # the upper half is bright
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    rotated(path, matrix)
    with reading(path) as (reader, _):
        frame = next(frames_of(reader))
        reader.stop()
    assert (frame.width, frame.height) == size
    assert frame.image.format.name == "yuv420p"
    luma = frame.image.to_ndarray(format="gray8").astype(float)
    height, width = luma.shape
    halves = {
        "top": luma[: height // 2],
        "bottom": luma[height // 2 :],
        "left": luma[:, : width // 2],
        "right": luma[:, width // 2 :],
    }
    assert max(halves, key=lambda side: float(halves[side].mean())) == bright


def test_stopping_a_waiting_reader(clip: Path) -> None:
    """A file reader that waits for its consumer ends when stopped, and gives out nothing more."""
    with reading(clip) as (reader, events):
        events.wait_for(Connected)
        reader.stop()
        assert not any(thread.name == "reader clip.mp4" for thread in threading.enumerate())
        with pytest.raises(EndOfStream):
            reader.next(0)
    assert Ended() not in events.seen


def test_stopping_from_an_event(clip: Path) -> None:
    """A consumer may stop the reader from within an event, the first one at that."""
    reader = open_reader(parse_source(str(clip)), sample_hz=8, on_event=lambda _: reader.stop())
    with reader:
        assert not list(frames_of(reader))


def test_a_fault_in_the_callback_reaches_the_consumer(clip: Path) -> None:
    """A callback that raises ends the stream, and the consumer is told why."""

    def broken(event: Event) -> None:
        raise RuntimeError(f"cannot handle {type(event).__name__}")

    with open_reader(parse_source(str(clip)), sample_hz=8, on_event=broken) as reader:
        with pytest.raises(EndOfStream) as caught:
            reader.next(PATIENCE_S)
        assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.skipif(sys.platform != "linux", reason="names a v4l2 camera")
def test_a_missing_webcam_is_missing() -> None:
    """A camera that is not plugged in is a permanent error that says so."""
    error = failure_of("webcam:987")
    assert isinstance(error, SourceMissing)
    assert "no such camera" in str(error)


def test_the_demo_is_read_like_a_camera() -> None:
    """The built-in demo is live: its pictures come at their own pace, with capture times, and never end."""
    with reading("demo") as (reader, events):
        first, second = take(reader), take(reader)
        assert events.wait_for(Connected) == Connected(first.width, first.height, 25.0)
    assert first.captured is not None
    assert second.captured is not None
    assert second.captured - first.captured == pytest.approx(second.pts_s - first.pts_s, abs=0.1)


# --- the RTSP camera


def test_a_camera_is_read_live(rtsp_server: Serve, clip: Path, index_of: IndexOf) -> None:
    """Frames of a camera come with their number, their media time and the time of their capture."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, events):
        assert events.wait_for(Connected) == Connected(320, 240, 25.0)
        frames = [take(reader) for _ in range(6)]
    for a, b in itertools.pairwise(frames):
        assert (index_of(b.image) - index_of(a.image)) % 100 == round((b.pts_s - a.pts_s) * 25)
        assert b.pts > a.pts
    assert frames[0].gap
    for frame in frames:
        assert frame.captured is not None
        assert frame.captured < time.time()
    assert Ended() not in events.seen


def test_a_camera_with_reordered_pictures(
    rtsp_server: Serve, tmp_path: Path, make_video: MakeVideo, index_of: IndexOf
) -> None:
    """B-frames come back in the order they are shown, in every round of the camera's film."""
    server = rtsp_server(make_video(tmp_path / "clip.mp4", frames=50, b_frames=2))
    with reading(server.url()) as (reader, _):
        # The first pictures after joining may lack those they refer to.
        frames = [take(reader) for _ in range(24)][4:]
        assert reader.corrupt == 0
    for a, b in itertools.pairwise(frames):
        assert (index_of(b.image) - index_of(a.image)) % 50 == round((b.pts_s - a.pts_s) * 25)
        assert b.pts > a.pts


def test_a_camera_over_udp(rtsp_server: Serve, clip: Path) -> None:
    """The same camera is read over UDP when asked."""
    server = rtsp_server(clip)
    with reading(server.url(), rtsp_transport="udp") as (reader, _):
        assert take(reader).width == 320


def test_a_killed_server_is_a_drop_and_its_return_a_new_start(rtsp_server: Serve, clip: Path) -> None:
    """Killing the server ends nothing: the stream drops, is retried while refused, and returns with a gap."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, events):
        take(reader)
        server.kill()
        dropped = events.wait_for(Disconnected)
        assert isinstance(dropped.error, SourceUnavailable)
        assert 0 < dropped.retry_in_s <= QUICK.max_s
        assert "refused" in str(events.wait_for(Disconnected).error)
        while reader.next(0):
            pass  # what was read before
        server.start()
        events.wait_for(Connected)
        assert take(reader).gap
        assert reader.error is None
    assert Connecting(2) in events.seen
    assert not any(isinstance(event, Ended | Failed) for event in events.seen)


def test_a_camera_that_falls_silent_is_a_drop(rtsp_server: Serve, clip: Path) -> None:
    """A camera that keeps its connection and sends nothing more times out; awake again, it is read again."""
    server = rtsp_server(clip)
    with reading(server.url(), timeouts=Timeouts(open_s=5, read_s=0.5)) as (reader, events):
        take(reader)
        server.freeze()
        dropped = events.wait_for(Disconnected)
        server.thaw()
        assert isinstance(dropped.error, SourceUnavailable)
        assert "for 0.5 s" in str(dropped.error)
        events.wait_for(Connected)


def test_stopping_a_silent_camera(rtsp_server: Serve, clip: Path) -> None:
    """A reader that waits for a camera's next packet ends with its read timeout and leaves no thread."""
    server = rtsp_server(clip)
    with reading(server.url(), timeouts=Timeouts(read_s=0.5)) as (reader, _):
        take(reader)
        server.freeze()
        reader.stop()
        assert "reader cam" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_credentials_open_a_guarded_camera(rtsp_server: Serve, clip: Path, auth: str) -> None:
    """The right password, special characters and all, opens the camera; a wrong one or none is final."""
    password = "p@ss/w:rd#1"
    server = rtsp_server(clip, auth=auth, user="ada", password=password)
    with reading(server.url(user="ada", password=password)) as (reader, _):
        assert take(reader).width == 320
    for url in (server.url(user="ada", password="wr0ng"), server.url()):
        error = failure_of(url)
        assert isinstance(error, SourceUnauthorized)
        assert "401" in str(error)
        assert "wr0ng" not in f"{error}{error!r}{error.__context__!r}"


def test_a_wrong_path_is_missing(rtsp_server: Serve, clip: Path) -> None:
    """A path the camera does not have is a permanent error."""
    error = failure_of(rtsp_server(clip).url("/nope"))
    assert isinstance(error, SourceMissing)
    assert "404" in str(error)


def test_a_slow_consumer_sees_drops_not_lag(rtsp_server: Serve, clip: Path) -> None:
    """A consumer that does nothing for a while loses samples and then sees the newest two, not old ones."""
    server = rtsp_server(clip)
    with reading(server.url()) as (reader, _):
        before = take(reader)
        dropped = reader.dropped
        deadline_s = time.monotonic() + PATIENCE_S
        while reader.dropped < dropped + 10 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        after = take(reader)
        waiting = sum(1 for _ in iter(lambda: reader.next(0), None))
    assert after.missed >= 10
    assert after.gap
    assert after.pts_s - before.pts_s >= 10 * 0.7 / 8
    assert waiting <= 2  # one may just have come; no backlog is worked off


def test_pictures_cut_up_by_the_server_are_whole(
    rtsp_server: Serve, tmp_path: Path, make_video: MakeVideo
) -> None:
    """Parameter sets repeated before every slice, as GStreamer does when asked, do not halve the pictures."""
    video = make_video(tmp_path / "slices.mp4", frames=100, options={"x264-params": "slices=4"})
    server = rtsp_server(video, headers_per_slice=True)
    with reading(server.url()) as (reader, _):
        for _ in range(8):
            luma = take(reader).image.to_ndarray(format="gray8")
            assert int(luma.max()) - int(luma.min()) <= 2
        assert reader.corrupt == 0


def test_a_camera_that_speaks_http(make_video: MakeVideo, tmp_path: Path) -> None:
    """An endless JPEG stream is live: its pictures have capture times, and its end is a drop."""
    path = make_video(tmp_path / "clip.mjpeg", frames=50, codec="mjpeg", options={"strict": "-1"})
    pictures = [b"\xff\xd8" + rest for rest in path.read_bytes().split(b"\xff\xd8")[1:]]

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for picture in pictures:
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                time.sleep(0.01)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the terminal clean."""

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
    """Accept connections on a port and never say anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_host_that_does_not_answer_times_out() -> None:
    """A server that accepts and says nothing is retried with growing numbers of attempts."""
    with listening() as server:
        url = f"rtsp://ada:s3cret@127.0.0.1:{server.getsockname()[1]}/cam"
        with reading(url, timeouts=Timeouts(open_s=0.2)) as (_, events):
            first, second = events.wait_for(Disconnected), events.wait_for(Disconnected)
    assert "no answer within 0.2 s" in str(first.error)
    assert isinstance(second.error, SourceUnavailable)
    assert "s3cret" not in repr(events.seen)
    assert [event for event in events.seen if isinstance(event, Connecting)][:2] == [
        Connecting(1),
        Connecting(2),
    ]


def test_stopping_within_a_connection_attempt() -> None:
    """A reader that waits for an answer is stopped before that wait is over, and says nothing afterwards."""
    with listening() as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        with reading(url, timeouts=Timeouts(open_s=4.0)) as (reader, events):
            events.wait_for(Connecting)
            started_s = time.monotonic()
            reader.stop()
            assert time.monotonic() - started_s < 3.0
        assert events.seen == [Connecting(1)]


def test_a_program_can_exit_within_a_connection_attempt() -> None:
    """A thread that is still inside FFmpeg neither holds up the end of the program nor crashes it."""
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


def test_a_finite_source_is_not_retried() -> None:
    """A web server that refuses ends a finite source with its error; asked to retry, the reader does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"http://127.0.0.1:{port}/clip.mp4"
    error = failure_of(url)
    assert isinstance(error, SourceUnavailable)
    assert "refused" in str(error)
    with reading(url, retry=True) as (_, events):
        events.wait_for(Disconnected)
        events.wait_for(Disconnected)
