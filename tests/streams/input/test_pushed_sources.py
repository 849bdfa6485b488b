"""Tests of sources that others push to: standard input, RTMP and MPEG-TS over UDP; and of screens."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceWaiting
from streams.input.events import Connected, Disconnected
from streams.input.pushed.standard_input import StandardInput
from tests.support.displays import Display, missing_program
from tests.support.reading import TIMEOUT_S, failure_of, frames_of, reading, take

SECRET = "s3cr3t-key"


@pytest.fixture(scope="module")
def display(face_video: Path, skip_or_fail: Callable[[str], None]) -> Iterator[Display]:
    """Display on which a face moves, at (40, 30)."""
    if program := missing_program():
        skip_or_fail(f"{program} is not installed (Debian: apt install xvfb ffmpeg)")
    running = Display()
    running.play(face_video, left=40, top=30)
    yield running
    running.kill()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


@contextmanager
def ffmpeg(video: Path, *output: str) -> Iterator[subprocess.Popen[bytes]]:
    """Send a video in real time with FFmpeg's own program."""
    command = ["ffmpeg", "-loglevel", "error", "-re", "-i", str(video), "-c", "copy", *output]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=-3)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def moves(images: list[av.VideoFrame]) -> bool:
    arrays = [image.to_ndarray(format="gray8") for image in images]
    return any((a != b).any() for a, b in itertools.pairwise(arrays))


def test_a_video_on_a_screen_is_read(display: Display) -> None:
    """The whole screen is read as a live source, without the frames of FFmpeg's guess at its rate."""
    with reading(f"screen:{display.number}") as (reader, events):
        assert events.wait_for(Connected) == Connected(800, 600, 16.0)
        frames = [take(reader) for _ in range(12)]
    assert moves([frame.image for frame in frames])
    assert all(frame.captured is not None for frame in frames)
    steps = [b.pts_s - a.pts_s for a, b in itertools.pairwise(frames)]
    assert 0.08 < sum(steps) / len(steps) < 0.22


def test_a_region_of_a_screen_is_read(display: Display) -> None:
    """A region has its own size and content; one that is not within the screen is a mistake."""
    with reading(f"window=screen::{display.number}.0+40,30,640x360") as (reader, events):
        assert events.wait_for(Connected) == Connected(640, 360, 16.0)
        assert reader.source.spec == f"window (screen:{display.number}.0+40,30,640x360)"
        while not take(reader).image.to_ndarray(format="gray8").any():
            pass  # the window is not open yet
    error = failure_of(f"screen:{display.number}+700,0,200x200")
    assert isinstance(error, SourceInvalid)
    assert "not within the screen" in str(error)


@pytest.mark.parametrize("shown", ["nothing", "video"])
def test_a_screen_that_goes_away_is_tried_again(
    shown: str, face_video: Path, skip_or_fail: Callable[[str], None]
) -> None:
    """FFmpeg repeats its last frames when an X server ends; the stream is lost all the same, and returns."""
    if program := missing_program():
        skip_or_fail(f"{program} is not installed (Debian: apt install xvfb ffmpeg)")
    screen = Display(size="640x360")
    try:
        with reading(f"screen:{screen.number}") as (reader, events):
            take(reader)
            if shown == "video":
                screen.play(face_video)
                images = [take(reader).image for _ in range(4)]
                while not moves(images):
                    images = [*images[1:], take(reader).image]
            screen.kill()
            killed_s = time.monotonic()
            assert "gone away" in str(events.wait_for(Disconnected).error)
            assert time.monotonic() - killed_s < 3.0
            missing = events.wait_for(Disconnected).error
            assert isinstance(missing, SourceMissing)
            assert "no such screen" in str(missing)
            screen = Display(screen.number)
            events.wait_for(Connected)
    finally:
        screen.kill()


def test_another_server_of_the_same_number_is_another_screen(skip_or_fail: Callable[[str], None]) -> None:
    """A session that starts again at once is a lost connection, not a still image."""
    if program := missing_program():
        skip_or_fail(f"{program} is not installed (Debian: apt install xvfb ffmpeg)")
    screen = Display(size="640x360")
    try:
        with reading(f"screen:{screen.number}") as (reader, events):
            take(reader)
            screen.kill()
            screen = Display(screen.number)
            assert "gone away" in str(events.wait_for(Disconnected).error)
            events.wait_for(Connected)
    finally:
        screen.kill()


def test_a_display_that_does_not_exist_is_missing() -> None:
    """It is a mistake at the first attempt."""
    error = failure_of("screen:4711")
    assert isinstance(error, SourceMissing)
    assert "unmask doctor" in str(error)


def test_an_rtmp_listener_listens_again(clip: Path) -> None:
    """It waits for a sender, is read, and waits again; the key is never shown."""
    port = free_port()
    with reading(f"rtmp://127.0.0.1:{port}/live/{SECRET}?listen=1") as (reader, events):
        for _ in range(2):
            sent = threading.Event()
            sender = threading.Thread(target=_send_until, args=(clip, port, sent))
            sender.start()
            try:
                connected = events.wait_for(Connected)
                assert (connected.width, connected.height) == (320, 240)
                assert take(reader).captured is not None
            finally:
                sent.set()
                sender.join()
            error = events.wait_for(Disconnected).error
            assert "the sender has left" in str(error)
    assert SECRET not in repr(events.received) + str(error) + reader.source.spec


def test_other_programs_on_the_port_of_a_listener() -> None:
    """A web client or a port scanner does not end the listener; a port in use is named."""
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/{SECRET}?listen=1"
    with reading(url) as (_, events):
        error: SourceError = SourceWaiting("", "")
        while isinstance(error, SourceWaiting):
            try:
                with socket.create_connection(("127.0.0.1", port)) as scanner:
                    scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
            except ConnectionRefusedError:
                continue  # it does not listen yet
            error = events.wait_for(Disconnected).error
        assert "not a video stream; check protocol" in str(error)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        reading(f"rtmp://127.0.0.1:{other.getsockname()[1]}/live/{SECRET}?listen=1") as (_, events),
    ):
        assert "the port is in use" in str(events.wait_for(Disconnected).error)


def _send_until(video: Path, port: int, done: threading.Event) -> None:
    """Send until `done`, again after a refusal: the listener may not listen yet."""
    while not done.is_set():
        target = f"rtmp://127.0.0.1:{port}/live/{SECRET}"
        with ffmpeg(video, "-f", "flv", target) as process:
            while process.poll() is None and not done.wait(0.05):
                pass


def test_a_listener_without_a_sender_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is that nobody sends; the next attempt follows at once."""
    monkeypatch.setattr("streams.input.source.LISTEN_S", 1)
    with reading(f"rtmp://:{free_port()}/live/{SECRET}?listen=1") as (_, events):
        waiting = events.wait_for(Disconnected)
    assert isinstance(waiting.error, SourceWaiting)
    assert waiting.retry_in_s == 0
    assert SECRET not in str(waiting.error)
    assert "start the sender" in str(waiting.error)


def test_mpeg_ts_over_udp_is_received(clip: Path) -> None:
    """A port without a host receives from any sender."""
    port = free_port(socket.SOCK_DGRAM)
    with (
        ffmpeg(clip, "-f", "mpegts", f"udp://127.0.0.1:{port}"),
        reading(f"udp://@:{port}") as (reader, events),
    ):
        assert events.wait_for(Connected).width == 320
        assert take(reader).captured is not None


def test_srt_without_libsrt_says_so() -> None:
    """The message names the library that PyAV's wheel lacks."""
    error = failure_of(f"srt://:9000?passphrase={SECRET}")
    assert isinstance(error, SourceInvalid)
    assert "built without libsrt, as PyAV's wheel is" in str(error)
    assert SECRET not in str(error)


READ_STANDARD_INPUT = """
import sys, time
from tests.support.reading import frames_of, reading
started = time.monotonic()
with reading("-") as (reader, events):
    frames = list(frames_of(reader))
print(len(frames), reader.real_time, type(events.received[-1]).__name__, reader.error)
"""


def read_standard_input(source: Path | bytes, *output: str) -> str:
    """Return the number of samples, whether it was live, the last event and the error of a piped video."""
    program = [sys.executable, "-c", READ_STANDARD_INPUT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if isinstance(source, bytes):
        done = subprocess.run(program, input=source, capture_output=True, env=environment, timeout=TIMEOUT_S)
    else:
        with ffmpeg(source, *output, "-") as sender:
            done = subprocess.run(
                program, stdin=sender.stdout, capture_output=True, env=environment, timeout=TIMEOUT_S
            )
    assert done.stderr == b""
    return done.stdout.decode().strip()


def test_standard_input_is_live(clip: Path) -> None:
    """A program that writes in real time is read live, and the stream ends with it."""
    count, *rest = read_standard_input(clip, "-f", "mpegts").split()
    assert rest == ["True", "Ended", "None"]
    assert 15 <= int(count) <= 34


def test_a_recording_on_standard_input_is_read_whole(
    make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """A file that states its duration waits for its consumer, as from the file itself."""
    video = make_face_video(tmp_path / "face.mkv", seconds=2.0)
    with reading(video) as (reader, _):
        expected = len(list(frames_of(reader)))
    assert read_standard_input(video.read_bytes()) == f"{expected} False Ended None"


@pytest.mark.parametrize("content", [b"", b"not a video" * 1000])
def test_standard_input_without_a_video(content: bytes) -> None:
    """One error, no retry: it cannot be opened again."""
    assert "Failed standard input: is empty, or not a video" in read_standard_input(content)


def test_an_mp4_with_its_index_at_the_end_on_standard_input(clip: Path) -> None:
    """The message says why the same video can be read as a file."""
    assert "cannot seek to; give the file itself" in read_standard_input(clip.read_bytes())


def test_a_terminal_is_no_video() -> None:
    """The message shows how to pipe."""
    controller, terminal = os.openpty()
    try:
        with pytest.raises(SourceInvalid, match="is a terminal"):
            StandardInput(threading.Event(), "standard input", terminal)
    finally:
        os.close(controller)
        os.close(terminal)
