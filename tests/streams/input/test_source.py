"""Tests of parsing the text of a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SourceError, SourceInvalid, SourceMissing, SourceNotVideo
from streams.input.devices.webcam import Camera
from streams.input.source import device_url, format_available, parse_source

SECRET = "rtsp://ada:s3cr3t@10.0.0.7:8554/live/cam"


def test_an_rtsp_address_hides_its_credentials() -> None:
    """Only FFmpeg is given the password and the path."""
    source = parse_source(SECRET)
    assert source.address.reveal() == SECRET
    assert source.spec == "rtsp://10.0.0.7:8554"
    assert source.name == "10.0.0.7"
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
        ("webcam", "linux", "webcam:0", "v4l2", "/dev/video0"),
        ("webcam:0", "linux", "webcam:0", "v4l2", "/dev/video0"),
        ("webcam:2", "linux", "webcam:2", "v4l2", "/dev/video2"),
        ("/dev/video2", "linux", "webcam:2", "v4l2", "/dev/video2"),
        (
            "/dev/v4l/by-id/usb-C920-index0",
            "linux",
            "usb-C920-index0",
            "v4l2",
            "/dev/v4l/by-id/usb-C920-index0",
        ),
        (
            "/dev/v4l/by-path/pci-0:1-index0",
            "linux",
            "pci-0:1-index0",
            "v4l2",
            "/dev/v4l/by-path/pci-0:1-index0",
        ),
        ("webcam", "darwin", "webcam:0", "avfoundation", "0:none"),
        ("webcam:1", "darwin", "webcam:1", "avfoundation", "1:none"),
        ("webcam:1", "win32", "webcam:1", "dshow", "1"),
    ],
)
def test_webcams_by_operating_system(text: str, platform: str, name: str, format: str, url: str) -> None:
    """Each operating system has its own FFmpeg format and camera address."""
    source = parse_source(text, platform=platform)
    assert (source.name, source.format, source.address.reveal()) == (name, format, url)
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
    cameras = [
        Camera(source=f"webcam:{number}", name=name, url=f"video={name}")
        for number, name in enumerate(["Integrated Camera", "OBS Virtual Camera"])
    ]
    source = parse_source("webcam:1", platform="win32")
    assert device_url(source, lambda: cameras) == "video=OBS Virtual Camera"
    with pytest.raises(SourceMissing, match="cameras found: 1"):
        device_url(source, lambda: cameras[:1])


@pytest.mark.parametrize(
    ("text", "live", "name"),
    [
        ("http://host/films/clip.MP4", None, "host"),
        ("https://host/master.m3u8?token=abc", None, "host"),
        ("http://phone:8080/video", None, "phone"),
        ("http://host", None, "host"),
        ("rtmp://host/app/stream", True, "host"),
        ("udp://@:1234", True, "udp"),
        ("srt://host:9000", True, "host"),
    ],
)
def test_only_the_answer_of_a_web_server_tells_whether_it_is_live(
    text: str, live: bool | None, name: str
) -> None:
    """Protocols of cameras are live; what a web server has may be a film, a broadcast or a camera."""
    source = parse_source(text)
    assert (source.kind, source.live, source.name) == ("url", live, name)
    assert parse_source(text, live=not live).live is not live


def test_a_file_name_may_contain_special_characters(tmp_path: Path) -> None:
    """Colons, spaces, `@` and `#` in a file name are kept."""
    path = tmp_path / "call: a@b #1.mp4"
    path.touch()
    source = parse_source(str(path))
    assert (source.kind, source.live, source.name) == ("file", False, path.name)
    assert source.address.reveal() == f"file:{path}"
    assert parse_source(path.as_uri()).address == source.address


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("door=rtsp://ada:s3cr3t@10.0.0.7/cam", "door", "rtsp://ada:s3cr3t@10.0.0.7/cam"),
        ("Front door=webcam:2", "Front door", "/dev/video2"),
        ("stage= demo", "stage", "demo"),
        ("rtsp://10.0.0.7/user=ada&password=s3cr3t", "10.0.0.7", "rtsp://10.0.0.7/user=ada&password=s3cr3t"),
        ("http://host/v?user=ada", "host", "http://host/v?user=ada"),
    ],
)
def test_a_source_can_be_named(text: str, name: str, address: str) -> None:
    """`NAME=SOURCE` names a source; an equals sign inside an address does not."""
    source = parse_source(text, platform="linux")
    assert (source.name, source.address.reveal()) == (name, address)
    assert parse_source(text, name="other").name == "other"
    assert "s3cr3t" not in repr(source) + source.spec


def test_a_name_stands_before_the_address_in_messages() -> None:
    """The message of a named source contains both; a failure to parse it does too."""
    assert parse_source("door=rtsp://10.0.0.7:554/cam").spec == "door (rtsp://10.0.0.7:554)"
    with pytest.raises(SourceInvalid, match=r"^door \(rtsp://…\): not a well-formed address"):
        parse_source("door=rtsp://ada:s3cr3t/x@host/cam")


def test_listening_addresses_hide_the_key() -> None:
    """FFmpeg listens because of an option; the key is part of neither name nor text."""
    source = parse_source("rtmp://:1935/live/s3cr3t?listen=1&x=1")
    assert source.address.reveal() == "rtmp://:1935/live/s3cr3t?x=1"
    assert (source.options["listen"], source.listens, source.live) == ("1", True, True)
    assert (source.spec, source.name) == ("rtmp://:1935", "rtmp")
    assert not parse_source("rtmp://host/live/s3cr3t").listens
    assert parse_source("udp://@:9000").listens


def test_standard_input_may_be_live() -> None:
    """The data written to it decide."""
    source = parse_source("call=-")
    assert (source.kind, source.live, source.spec) == ("pipe", None, "call (standard input)")


def test_an_existing_file_with_an_equals_sign_is_a_file(tmp_path: Path) -> None:
    """`a=b.mp4` is a file if there is one, else the source `b.mp4` named `a`."""
    path = tmp_path / "a=b.mp4"
    path.touch()
    assert parse_source(str(path)).name == "a=b.mp4"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a b"),
        ("a\x1b[31mb", "a\N{REPLACEMENT CHARACTER}[31mb"),
        ("a\u202eb\u2066c", "abc"),
        ("a\udcffb", "a\N{REPLACEMENT CHARACTER}b"),
        ("a\u2028b\x85c", "a b c"),
        ("\0" + "x" * 100, "\N{REPLACEMENT CHARACTER}" + "x" * 62 + "…"),
        ("\u200b \n", "10.0.0.7"),
        ("Türklingel 門", "Türklingel 門"),
    ],
)
def test_names_are_printable_and_short(name: str, shown: str) -> None:
    """Line breaks, control, bidi and undecodable characters never become part of a name."""
    assert parse_source("rtsp://10.0.0.7/cam", name=name).name == shown
    assert shown.isprintable()


def test_a_session_description_is_a_live_source(tmp_path: Path) -> None:
    """FFmpeg may open the network ports that an `.sdp` file names."""
    path = tmp_path / "camera.sdp"
    path.touch()
    source = parse_source(str(path))
    assert (source.kind, source.live, source.format, source.name) == ("url", True, "sdp", "camera.sdp")
    assert "rtp" in source.options["protocol_whitelist"].split(",")


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
        ("screen:0+1,2", SourceInvalid, "not a screen; write screen"),
        ("screen:0+1,2,0x9", SourceInvalid, "the region is empty"),
        ("rtmp://:0x/live/s3cr3t?listen=1", SourceInvalid, "not a well-formed address"),
        ("rtmp:///live/s3cr3t?listen=1", SourceInvalid, "no port"),
        ("rtmp://:1935/live/s3cr3t", SourceInvalid, "no host"),
        ("rtsp://", SourceInvalid, "no host"),
        ("rtsp:///cam", SourceInvalid, "no host"),
        ("rtsp://host:port/cam", SourceInvalid, "not a well-formed address"),
        ("rtsp://host:99999/cam", SourceInvalid, "not a well-formed address"),
        ("rtsp://ada:s3cr3t/x@host/cam", SourceInvalid, "%XX"),
        ("rtsp://ada:s3cr3t@x/s3cr3t@host/cam", SourceInvalid, "unclear where the password ends"),
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
