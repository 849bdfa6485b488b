"""Tests of the reader on files, and of its configuration."""

from __future__ import annotations

import itertools
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.helpers.rtsp_process import RtspProcess
from streams.errors import EndOfStream, SourceMissing, SourceNotVideo
from streams.input.capture.interface import Timeouts
from streams.input.events import Connected, Connecting, Ended, Event, TooSlow
from streams.input.reader import Backoff, open_reader
from streams.input.sampler import Sampler
from streams.input.source import parse_source
from tests.support.reading import TIMEOUT_S, failure_of, frames_of, reading

IndexOf = Callable[[av.VideoFrame], int]
MakeVideo = Callable[..., Path]
StartCamera = Callable[..., RtspProcess]


def test_backoff_doubles_up_to_a_limit() -> None:
    """Every failure doubles the wait; jitter only shortens it."""
    backoff = Backoff(first_s=0.5, max_s=10.0, jitter=0.2)
    assert [backoff.delay_s(failures, 0.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert backoff.delay_s(1, 0.5) == pytest.approx(0.45)
    assert backoff.delay_s(10_000, 0.999) == pytest.approx(8.0, abs=0.01)


@pytest.mark.parametrize("wrong", [{"first_s": 0.0}, {"first_s": 20.0}, {"jitter": 1.5}])
def test_an_invalid_backoff_raises(wrong: dict[str, float]) -> None:
    """Waits must be positive and at most `max_s`."""
    with pytest.raises(ValueError, match="must be in"):
        Backoff(**wrong)


@pytest.mark.parametrize("wrong", [{"open_s": 0.0}, {"read_s": 0.0}, {"read_s": 2.0}])
def test_invalid_timeouts_raise(wrong: dict[str, float]) -> None:
    """Timeouts must be positive, and `read_s` short enough for `Reader.stop`."""
    with pytest.raises(ValueError, match="must be"):
        Timeouts(**wrong)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_file_gives_every_due_frame_in_order(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, b_frames: int
) -> None:
    """Exactly the frames that the sampler selects are delivered, in presentation order."""
    path = make_video(tmp_path / "clip.mp4", frames=100, b_frames=b_frames)
    sampler = Sampler(8.0)
    due = [index for index in range(100) if sampler.offer(index / 25)]
    with reading(path) as (reader, events):
        taken = list(frames_of(reader))
    assert [index_of(frame.image) for frame in taken] == due
    start_s = taken[0].pts_s
    assert [round((frame.pts_s - start_s) * 25) for frame in taken] == due
    assert all(frame.captured is None and frame.segment == 1 for frame in taken)
    assert all(frame.decode_ms >= 0 and (frame.width, frame.height) == (320, 240) for frame in taken)
    assert events.received == [Connecting(1), Connected(320, 240, 25.0), Ended()]
    assert (reader.losses.total, reader.corrupt, reader.error) == (0, 0, None)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".h264"])
def test_every_container_gives_the_same_frames(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, suffix: str
) -> None:
    """Frames and sample rate do not depend on the container; a raw H.264 stream has no times of its own."""
    path = make_video(tmp_path / f"clip{suffix}", frames=50)
    with reading(path) as (reader, _):
        indices = [index_of(frame.image) for frame in frames_of(reader)]
    assert indices[0] == 0
    assert len(indices) == 16
    assert max(b - a for a, b in itertools.pairwise(indices)) <= 4


def test_a_slow_source_is_reported(tmp_path: Path, make_video: MakeVideo) -> None:
    """A video with three frames per second is too slow for 8 Hz; this is reported once."""
    path = make_video(tmp_path / "slow.mp4", frames=25, fps=3)
    with reading(path) as (reader, events):
        frames = list(frames_of(reader))
    (too_slow,) = [event for event in events.received if isinstance(event, TooSlow)]
    assert too_slow.fps == pytest.approx(3.0)
    assert too_slow.needed_hz == pytest.approx(8 / 1.75)
    assert max(Counter(frame.segment for frame in frames).values()) <= 2


def test_a_source_of_five_frames_a_second_is_one_segment(tmp_path: Path, make_video: MakeVideo) -> None:
    """Five frames per second, the usual rate of a camera's second stream, are enough."""
    path = make_video(tmp_path / "slow.mp4", frames=25, fps=5)
    with reading(path) as (reader, events):
        frames = list(frames_of(reader))
    assert [frame.segment for frame in frames] == [1] * 25
    assert not any(isinstance(event, TooSlow) for event in events.received)


def test_an_audio_track_is_ignored(tmp_path: Path, make_video: MakeVideo) -> None:
    """A video with audio gives its video frames."""
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
    """Write a second of silence with a cover image, as in music files."""
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
def test_a_file_without_video_fails_at_once(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    write: Callable[[Path], None],
    words: str,
) -> None:
    """The error names the file and the reason, there is no retry, and FFmpeg prints nothing."""
    write(tmp_path / name)
    error = failure_of(tmp_path / name, retry=True)
    assert isinstance(error, SourceNotVideo)
    assert words in str(error)
    assert str(error).startswith(str(tmp_path / name))
    assert capfd.readouterr() == ("", "")


def test_a_truncated_file_gives_its_remaining_frames(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file truncated in its data ends normally after the frames it still has."""
    whole = make_video(tmp_path / "whole.mkv", frames=100).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) * 3 // 5])
    with reading(path) as (reader, events):
        indices = [index_of(frame.image) for frame in frames_of(reader)]
    assert 10 < len(indices) < 25
    assert indices == sorted(indices)
    assert events.received[-1] == Ended()
    assert capfd.readouterr() == ("", "")


def test_a_file_truncated_before_its_index_is_not_a_video(tmp_path: Path, make_video: MakeVideo) -> None:
    """An MP4 without its index cannot be read."""
    path = make_video(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[:5000])
    assert isinstance(failure_of(path), SourceNotVideo)


def test_damaged_frames_are_counted_and_left_out(
    tmp_path: Path, make_video: MakeVideo, index_of: IndexOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """Frames damaged by overwritten bytes are counted in `corrupt` and not delivered."""
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
    assert events.received[-1] == Ended()
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
def test_a_rotated_video_is_turned_upright(
    tmp_path: Path, matrix: tuple[int, ...], size: tuple[int, int], bright: str
) -> None:
    """The rotation in the metadata is applied: 90 degrees clockwise, 180, 270."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        image = np.zeros((240, 320, 3), np.uint8)
        image[:120] = 255  # the upper half is bright
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
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


def test_a_reader_that_waits_for_its_consumer_can_be_stopped(clip: Path) -> None:
    """Its thread ends, and it delivers nothing more."""
    with reading(clip) as (reader, events):
        events.wait_for(Connected)
        reader.stop()
        assert not any(thread.name == "reader clip.mp4" for thread in threading.enumerate())
        with pytest.raises(EndOfStream):
            reader.next(0)
    assert Ended() not in events.received


def test_a_reader_can_be_stopped_from_an_event(clip: Path) -> None:
    """Stopping within the first event ends the reader without a frame."""
    reader = open_reader(parse_source(str(clip)), sample_hz=8, on_event=lambda _: reader.stop())
    with reader:
        assert not list(frames_of(reader))


def test_an_exception_in_the_callback_reaches_the_consumer(clip: Path) -> None:
    """It ends the stream as the cause of EndOfStream."""

    def broken(event: Event) -> None:
        raise RuntimeError(f"cannot handle {type(event).__name__}")

    with open_reader(parse_source(str(clip)), sample_hz=8, on_event=broken) as reader:
        with pytest.raises(EndOfStream) as caught:
            reader.next(TIMEOUT_S)
        assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.skipif(sys.platform != "linux", reason="names a v4l2 camera")
def test_a_missing_webcam_fails() -> None:
    """A camera that is not plugged in is a permanent error."""
    error = failure_of("webcam:987")
    assert isinstance(error, SourceMissing)
    assert "no such camera" in str(error)
