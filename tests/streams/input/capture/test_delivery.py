"""Tests of what an open container says about its delivery."""

from __future__ import annotations

import pytest

from streams.input.capture.delivery import Delivery, PacketHistory, delivery_of

CAMERA = Delivery(real_time=True, finite=False)
FILM = Delivery(real_time=False, finite=True)
BROADCAST = Delivery(real_time=False, finite=False, segmented=True)
FILM_IN_SEGMENTS = Delivery(real_time=False, finite=True, segmented=True)


@pytest.mark.parametrize(
    ("live", "formats", "duration", "size", "delivery"),
    [
        pytest.param(True, "rtsp", 5000, -1, CAMERA, id="a protocol of cameras"),
        pytest.param(False, "hls", None, -1, FILM, id="a file"),
        pytest.param(None, "hls", None, 300, BROADCAST, id="playlist without an end"),
        pytest.param(None, "dash", 0, 300, BROADCAST, id="DASH without a duration"),
        pytest.param(None, "hls", 8_000_000, 300, FILM_IN_SEGMENTS, id="playlist with an end"),
        pytest.param(None, "mov,mp4,m4a", 8_000_000, 5000, FILM, id="download"),
        pytest.param(None, "matroska,webm", None, 5000, FILM, id="download without a duration"),
        pytest.param(None, "mpjpeg", None, -1, CAMERA, id="JPEG images without an end"),
        pytest.param(None, "mov,mp4,m4a", 0, -1, CAMERA, id="fragmented MP4 without a length"),
    ],
)
def test_the_container_decides_if_the_kind_of_source_does_not(
    live: bool | None, formats: str, duration: int | None, size: int, delivery: Delivery
) -> None:
    """A stated duration or length is an end; the length of a playlist is none."""
    assert delivery_of(live=live, formats=formats, duration=duration, size=size) == delivery


def test_packets_are_recognised_by_time_and_content() -> None:
    """The same still image at another time is new; the oldest packets are forgotten."""
    history = PacketHistory()
    assert [history.add(pts, b"still") for pts in (1, 2, 1, 2)] == [True, True, False, False]
    assert all(history.add(pts, b"next") for pts in range(10_000))
    assert history.add(1, b"still")


@pytest.mark.parametrize(("fps", "seconds"), [(25, 30), (60, 30), (60, 60), (120, 60)])
def test_all_packets_that_ffmpeg_starts_again_with_are_recognised(fps: int, seconds: int) -> None:
    """At any frame rate: three segments of HLS, or a minute of DASH, after hours of the broadcast."""
    history = PacketHistory()
    earlier = 20_000
    packets = range(earlier + fps * seconds)
    assert all(history.add(pts, b"image") for pts in packets)
    assert not any(history.add(pts, b"image") for pts in packets[earlier:])
