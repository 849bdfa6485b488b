"""Packet ring and remuxing, with packets of real files."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from streams.input.clips.packet_ring import _PACKET_BYTES, PacketRing, RingLimits
from streams.input.clips.remux import clip_suffix, decoding_times, write_clip
from streams.input.reader import open_reader
from streams.input.source import file_source
from tests.support.videos import frame_index, write_decoding_order


def fill(path: Path, limits: RingLimits) -> PacketRing:
    """Read a file into a ring, and close it."""
    ring = PacketRing(limits)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        ring.begin(stream)
        for packet in container.demux(stream):
            ring.add(packet, stream.time_base)
    return ring


def indices(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [frame_index(frame) for frame in container.decode(video=0)]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_clip_begins_at_the_key_frame_before_its_start(
    make_video: Callable[..., Path], tmp_path: Path, b_frames: int
) -> None:
    """Exactly the frames from there to the end, though the source has been closed."""
    video = make_video(tmp_path / "video.mp4", frames=100, gop=10, b_frames=b_frames)
    ring = fill(video, RingLimits(seconds=10))
    cut = ring.cut(1.5, 2.5)
    assert cut is not None
    path = tmp_path / f"clip{clip_suffix(cut)}"
    clip = write_clip(path, cut)
    assert path.suffix == ".mp4"
    assert clip.codec == "h264"
    found = indices(path)
    assert found[0] == 30
    assert found == list(range(30, 30 + len(found)))
    assert 61 - b_frames <= found[-1] + 1 <= 64
    assert clip.start_s == pytest.approx(1.2, abs=0.11)


def test_the_time_kept_is_bounded(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """Packets are dropped up to the next key frame, so that the oldest packet is a key frame."""
    ring = fill(make_video(tmp_path / "video.mp4", frames=100, gop=10), RingLimits(seconds=1.0))
    cut = ring.cut(0.0, 100.0)
    assert cut is not None
    assert cut.packets[0].is_keyframe
    assert 25 <= len(cut.packets) <= 36


def test_the_size_is_bounded(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """Of a stream with one key frame only, nothing is kept once the limit is reached."""
    video = make_video(tmp_path / "video.mp4", frames=100, gop=1000)
    with av.open(str(video)) as container:
        size = sum(packet.size + _PACKET_BYTES for packet in container.demux(video=0) if packet.size)
    assert fill(video, RingLimits(seconds=10, max_bytes=size)).cut(0, 10) is not None
    assert fill(video, RingLimits(seconds=10, max_bytes=size // 2)).cut(0, 10) is None


class SmallPacket:
    """Packet of a still scene, which counts how often it is asked whether it is a key frame."""

    size = 10
    asked = 0

    def __init__(self, number: int, *, key_frame: bool) -> None:
        self.pts = self.dts = number
        self._key_frame = key_frame

    @property
    def is_keyframe(self) -> bool:
        self.asked += 1
        return self._key_frame


@pytest.mark.parametrize("gop", [10, 10_000])
def test_each_packet_costs_the_same_however_rare_key_frames_are(clip: Path, gop: int) -> None:
    """Older packets are not asked again; small ones count with the memory of their objects."""
    limits = RingLimits(seconds=100, max_bytes=1_000_000)
    ring = PacketRing(limits)
    with av.open(str(clip)) as container:
        ring.begin(container.streams.video[0])
    packets: list[Any] = [SmallPacket(number, key_frame=number % gop == 0) for number in range(3000)]
    most = 0
    for packet in packets:
        ring.add(packet, Fraction(1, 25))
        most = max(most, len(ring._packets))
    assert max(packet.asked for packet in packets) <= 2
    assert most <= limits.max_bytes / 500
    cut = ring.cut(0.0, 120.0)
    assert (cut is None) == (gop == 10_000)
    assert cut is None or cut.packets[0].is_keyframe


def test_a_jump_of_the_clock_begins_again(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """Packets before a jump back are dropped, as are those in another unit of time."""
    video = make_video(tmp_path / "video.mp4", frames=50, gop=10)
    for factor in (1, 2):
        ring = PacketRing(RingLimits(seconds=10))
        with av.open(str(video)) as container:
            ring.begin(container.streams.video[0])
            packets = list(container.demux(video=0))
        for packet in packets:
            ring.add(packet, packet.time_base)
        for packet in packets[:5]:
            ring.add(packet, packet.time_base * factor)
        cut = ring.cut(0.0, 100.0)
        assert cut is not None
        assert len(cut.packets) == 5


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("b.avi", "mjpeg"), ("c.ts", "libx264")])
def test_containers_and_codecs(
    make_video: Callable[..., Path], tmp_path: Path, name: str, codec: Any
) -> None:
    """A clip of each codec can be played; what MP4 does not take goes into Matroska."""
    cut = fill(
        make_video(tmp_path / name, frames=50, codec=codec, options={"strict": "unofficial"}),
        RingLimits(seconds=10),
    ).cut(0.5, 9.0)
    assert cut is not None
    path = tmp_path / f"clip{clip_suffix(cut)}"
    write_clip(path, cut)
    assert path.suffix == (".mkv" if codec == "mjpeg" else ".mp4")
    assert len(indices(path)) >= 30


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_hevc_has_the_tag_that_all_players_know(tmp_path: Path, suffix: str) -> None:
    """With `hev1`, FFmpeg's choice, Apple's players show nothing. The clip can be decoded."""
    video = write_decoding_order(tmp_path / f"video{suffix}", codec="libx265", frames=50)
    cut = fill(video, RingLimits(seconds=10)).cut(0.0, 10.0)
    assert cut is not None
    path = tmp_path / f"clip{clip_suffix(cut)}"
    write_clip(path, cut)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    assert len(indices(path)) >= 40


def test_time_stamps_in_decoding_order(tmp_path: Path) -> None:
    """AVI with B-frames has no presentation times; its clip can be decoded."""
    video = write_decoding_order(tmp_path / "video.avi", codec="libx264")
    cut = fill(video, RingLimits(seconds=10)).cut(0.0, 10.0)
    if cut is not None:
        write_clip(tmp_path / "clip.mp4", cut)
        assert len(indices(tmp_path / "clip.mp4")) > 30


@pytest.mark.parametrize(
    "times", [[0], [0, 1, 2], [0, 3, 1, 2, 6, 4, 5], [5, 5, 5], [0, 8, 4, 2, 1, 3, 6, 5, 7]]
)
def test_decoding_times_increase(times: list[int]) -> None:
    """They increase, and are not after the presentation times where these differ."""
    decoding = decoding_times(times)
    assert all(early < late for early, late in itertools.pairwise(decoding))
    if len(set(times)) == len(times):
        assert all(dts <= pts for dts, pts in zip(decoding, times, strict=True))


def test_a_full_disk_is_an_error_of_the_system(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """The caller can report it as such."""
    cut = fill(make_video(tmp_path / "video.mp4"), RingLimits(seconds=10)).cut(0.0, 10.0)
    assert cut is not None
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="space"):
        write_clip(tmp_path / "full.mkv", cut)
    with pytest.raises(FileNotFoundError):
        write_clip(tmp_path / "missing" / "clip.mp4", cut)


def test_the_reader_keeps_packets_if_asked(clip: Path) -> None:
    """Frames and packets have the same times; without limits nothing is kept."""
    ended = threading.Event()
    for keep in (None, RingLimits(seconds=10)):
        with open_reader(file_source(clip), sample_hz=8, on_event=lambda _: None, keep=keep) as reader:
            frame = reader.next(timeout_s=30)
            assert frame is not None
            assert (reader.packets is None) == (keep is None)
            while reader.packets is not None and reader.packets.cut(frame.pts_s, frame.pts_s) is None:
                ended.wait(0.01)


def test_raw_frames_are_not_kept(make_video: Callable[..., Path], tmp_path: Path) -> None:
    """A second of them would fill the ring."""
    path = tmp_path / "raw.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        with av.open(str(make_video(tmp_path / "video.mp4", frames=5))) as source:
            for frame in source.decode(video=0):
                container.mux(stream.encode(frame.reformat(64, 48, "yuv420p")))
    ring = fill(path, RingLimits(seconds=10))
    assert not ring.has_packets
    assert ring.cut(0.0, 10.0) is None


def test_limits_are_checked() -> None:
    """A ring of nothing is a mistake."""
    with pytest.raises(ValueError, match="above 0"):
        RingLimits(seconds=0)
    assert PacketRing(RingLimits(seconds=1)).cut(0, 1) is None
    PacketRing(RingLimits(seconds=1)).add(av.Packet(b"x"), Fraction(1))  # type: ignore[arg-type]
