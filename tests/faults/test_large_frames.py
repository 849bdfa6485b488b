"""Faults: a small file whose frames would fill the memory when they are decoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streams.errors import SourceNotVideo
from streams.input.capture.ffmpeg import MAX_SIZE
from tests.support.reading import failure_of, frames_of, reading

SMALL, LARGE = (64, 48), (9000, 5000)


def png_packets(size: tuple[int, int], count: int) -> list[av.Packet[av.VideoStream]]:
    """Return a flat frame as packets in PNG, which needs few bytes whatever its size."""
    width, height = size
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "gray"
    encoder.time_base = Fraction(1, 8)
    frame = av.VideoFrame.from_ndarray(np.full((height, width), 90, np.uint8), format="gray")
    packets = []
    for _ in range(count):
        packets += encoder.encode(frame)
    return packets


def write_frames(path: Path, packets: list[av.Packet[av.VideoStream]], size: tuple[int, int]) -> Path:
    """Write packets as a video that announces a size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "gray"
        for number, packet in enumerate(packets):
            packet.stream = stream
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, 8)
            container.mux(packet)
    return path


def test_frames_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """The message states the limit; no frame is allocated."""
    assert LARGE[0] * LARGE[1] > MAX_SIZE[0] * MAX_SIZE[1]
    path = write_frames(tmp_path / "large.mov", png_packets(LARGE, 2), LARGE)
    assert path.stat().st_size < 1_000_000
    failure = failure_of(path)
    assert isinstance(failure, SourceNotVideo)
    assert "larger than 8192 x 4352 pixels" in str(failure)


def test_frames_that_grow_later_are_skipped(tmp_path: Path) -> None:
    """The frames before and after the large ones are read."""
    packets = png_packets(SMALL, 8) + png_packets(LARGE, 2) + png_packets(SMALL, 8)
    path = write_frames(tmp_path / "grows.mov", packets, SMALL)
    with reading(path) as (reader, _):
        sizes = [(frame.width, frame.height) for frame in frames_of(reader)]
    assert set(sizes) == {SMALL}
    assert len(sizes) >= 12
