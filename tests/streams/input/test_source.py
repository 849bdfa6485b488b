"""Tests of parsing the text of a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceNotVideo
from streams.input.source import device_url, format_available, parse_source

SECRET = "rtsp://ada:s3cr3t@10.0.0.7:8554/live/cam"


def test_an_rtsp_address_hides_its_credentials() -> None:
    """Only `url` contains the password."""
    source = parse_source(SECRET)
    assert source.url == SECRET
    assert source.spec == "rtsp://10.0.0.7:8554/live/cam"
    assert source.name == "cam"
    assert (source.kind, source.live) == ("rtsp", True)
    assert "s3cr3t" not in repr(source) + str(source)
    assert "ada" not in repr(source)
    assert hash(source) == hash(parse_source(SECRET))


def test_the_frame_rate_of_a_camera_is_not_probed() -> None:
    """Probing would delay the first frame by most of a second."""
    assert parse_source("rtsp://host/cam").options["fpsprobesize"] == "0"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_rtsp_transport_is_passed_to_ffmpeg(transport: str) -> None:
    """TCP and UDP are set in FFmpeg's options."""
    source = parse_source("rtsps://host/cam", rtsp_transport=transport)  # type: ignore[arg-type]
    assert source.options["rtsp_transport"] == transport


def test_the_default_rtsp_transport_is_tcp() -> None:
    """Any other value than tcp and udp raises ValueError."""
    assert parse_source("rtsp://host/cam").options["rtsp_transport"] == "tcp"
    with pytest.raises(ValueError, match="tcp or udp"):
        parse_source("rtsp://host/cam", rtsp_transport="pigeon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "platform", "name", "format", "url"),
    [
        ("webcam", "linux", "webcam", "v4l2", "/dev/video0"),
        ("webcam:0", "linux", "webcam", "v4l2", "/dev/video0"),
        ("webcam:2", "linux", "webcam-2", "v4l2", "/dev/video2"),
        ("/dev/video2", "linux", "webcam-2", "v4l2", "/dev/video2"),
        ("webcam", "darwin", "webcam", "avfoundation", "0:none"),
        ("webcam:1", "darwin", "webcam-1", "avfoundation", "1:none"),
        ("webcam:1", "win32", "webcam-1", "dshow", "1"),
    ],
)
def test_webcams_by_operating_system(text: str, platform: str, name: str, format: str, url: str) -> None:
    """Each operating system has its own FFmpeg format and camera address."""
    source = parse_source(text, platform=platform)
    assert (source.name, source.format, source.url) == (name, format, url)
    assert (source.kind, source.live) == ("webcam", True)


def test_webcams_are_invalid_on_unsupported_systems() -> None:
    """The error names the operating system."""
    with pytest.raises(SourceInvalid, match="not supported on sunos"):
        parse_source("webcam", platform="sunos")


@pytest.mark.parametrize("available", [["v4l2"], ["video4linux2,v4l2"], ["avi", "v4l2,video4linux2"]])
def test_a_format_is_found_under_each_of_its_names(available: list[str]) -> None:
    """FFmpeg lists v4l2 together with its other name."""
    assert format_available("v4l2", available)
    assert not format_available("v4l", available)
    assert not format_available("dshow", available)


def test_directshow_cameras_are_found_by_number() -> None:
    """The number is replaced by the camera's name; a number without a camera raises SourceMissing."""
    cameras = ["Integrated Camera", "OBS Virtual Camera"]
    source = parse_source("webcam:1", platform="win32")
    assert device_url(source, lambda: cameras) == "video=OBS Virtual Camera"
    with pytest.raises(SourceMissing, match="cameras found: 1"):
        device_url(source, lambda: cameras[:1])


@pytest.mark.parametrize(
    ("text", "live", "name"),
    [
        ("http://host/films/clip.MP4", False, "clip.MP4"),
        ("https://host/master.m3u8?token=abc", False, "master.m3u8"),
        ("http://phone:8080/video", True, "video"),
        ("http://host", True, "host"),
        ("rtmp://host/app/stream", True, "stream"),
        ("udp://@:1234", True, "udp"),
        ("srt://host:9000", True, "host"),
    ],
)
def test_urls_are_live_or_finite(text: str, live: bool, name: str) -> None:
    """Files and playlists on a web server are finite; other URLs are live."""
    source = parse_source(text)
    assert (source.kind, source.live, source.name) == ("url", live, name)
    assert parse_source(text, live=not live).live is not live


def test_a_file_name_may_contain_special_characters(tmp_path: Path) -> None:
    """Colons, spaces, `@` and `#` in a file name are kept."""
    path = tmp_path / "call: a@b #1.mp4"
    path.touch()
    source = parse_source(str(path))
    assert (source.kind, source.live, source.name) == ("file", False, path.name)
    assert source.url == f"file:{path}"
    assert parse_source(path.as_uri()).url == source.url


def test_the_demo_is_a_live_source() -> None:
    """Surrounding spaces are ignored."""
    source = parse_source(" demo ")
    assert (source.kind, source.live, source.name) == ("demo", True, "demo")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", SourceInvalid, "nothing was given"),
        ("   ", SourceInvalid, "nothing was given"),
        ("gopher://host/cam", SourceInvalid, "unknown scheme gopher://"),
        ("rtsp:/host/cam", SourceInvalid, "neither a file nor"),
        ("webcam:front", SourceInvalid, "neither a file nor"),
        ("rtsp://", SourceInvalid, "no host"),
        ("rtsp:///cam", SourceInvalid, "no host"),
        ("rtsp://host:port/cam", SourceInvalid, "not a well-formed address"),
        ("rtsp://host:99999/cam", SourceInvalid, "not a well-formed address"),
        ("rtsp://ada:s3cr3t/x@host/cam", SourceInvalid, "%XX"),
        ("nul\0byte.mp4", SourceMissing, "no such file"),
        ("no/such/clip.mp4", SourceMissing, "no such file"),
        ("file:///no/such/clip.mp4", SourceMissing, "no such file"),
        ("x" * 5000, SourceInvalid, "not a possible file name"),
    ],
)
def test_invalid_text_raises(text: str, error: type[SourceError], words: str) -> None:
    """The message is one line that explains the mistake and contains no password."""
    with pytest.raises(error, match=words) as caught:
        parse_source(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "s3cr3t" not in message
    assert caught.value.permanent


def test_a_directory_is_not_a_video(tmp_path: Path) -> None:
    """An existing directory raises SourceNotVideo."""
    with pytest.raises(SourceNotVideo, match="is a directory"):
        parse_source(str(tmp_path))
