"""Tests of webcams and screens by operating system."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SourceError, SourceInvalid, SourceMissing
from streams.input.devices.screen import is_screen, parse_screen
from streams.input.devices.webcam import Camera, camera_url, find_cameras
from streams.input.source import device_url, parse_source


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Root folder of a Linux machine with two cameras, the first of which has a second node for metadata."""
    for number, index, name in (
        (0, 0, "HD Webcam: HD"),
        (1, 1, "HD Webcam: HD"),
        (10, 0, "OBS Virtual Camera"),
    ):
        folder = tmp_path / f"sys/class/video4linux/video{number}"
        folder.mkdir(parents=True)
        (folder / "index").write_text(f"{index}\n")
        (folder / "name").write_text(f"{name}\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / f"dev/video{number}").touch()
    links = tmp_path / "dev/v4l/by-id"
    links.mkdir(parents=True)
    (links / "usb-HD_Webcam-index0").symlink_to("../../video0")
    return tmp_path


def test_cameras_are_listed_with_their_stable_names(machine: Path) -> None:
    """Nodes for metadata are no cameras."""
    assert find_cameras("linux", root=machine) == [
        Camera(
            source="webcam:0",
            name="HD Webcam: HD",
            url="/dev/video0",
            links=("/dev/v4l/by-id/usb-HD_Webcam-index0",),
        ),
        Camera(source="webcam:10", name="OBS Virtual Camera", url="/dev/video10"),
    ]
    assert find_cameras("linux", root=machine / "none") == []


def test_a_camera_is_found_by_its_name(machine: Path) -> None:
    """Names may contain colons; the camera is looked up when it is opened, so its number may change."""
    source = parse_source("desk=webcam:hd webcam: HD", platform="linux")
    assert (source.kind, source.format, source.name) == ("webcam", "v4l2", "desk")
    assert device_url(source, lambda: find_cameras("linux", root=machine)) == "/dev/video0"
    with pytest.raises(SourceMissing, match="cameras found: HD Webcam: HD, OBS Virtual Camera"):
        camera_url("Other", "webcam:Other", lambda: find_cameras("linux", root=machine))


@pytest.mark.parametrize(
    ("text", "platform", "url", "shown", "options"),
    [
        ("screen", "linux", ":5", "screen", {}),
        ("screen:1", "linux", ":1", "screen:1", {}),
        ("screen::1.0", "linux", ":1.0", "screen:1.0", {}),
        ("screen:host:10.0", "linux", "host:10.0", "screen:host:10.0", {}),
        ("screen+10,20,640x480", "linux", ":5+10,20", "screen+10,20,640x480", {"video_size": "640x480"}),
        ("screen:1+0,0,8x6", "linux", ":1+0,0", "screen:1+0,0,8x6", {"video_size": "8x6"}),
        ("screen:1", "darwin", "Capture screen 1:none", "screen:1", {}),
        (
            "screen+1,2,8x6",
            "win32",
            "desktop",
            "screen+1,2,8x6",
            {"offset_x": "1", "offset_y": "2", "video_size": "8x6"},
        ),
    ],
)
def test_screens_by_operating_system(
    text: str, platform: str, url: str, shown: str, options: dict[str, str]
) -> None:
    """Each operating system has its own FFmpeg format and address."""
    grab = parse_screen(text, platform, {"DISPLAY": ":5"})
    assert (grab.url, grab.shown) == (url, shown)
    assert grab.format == {"linux": "x11grab", "darwin": "avfoundation", "win32": "gdigrab"}[platform]
    assert options.items() <= grab.options.items()
    assert ("video_size" in grab.options) == ("video_size" in options)


@pytest.mark.parametrize(
    ("text", "platform", "environment", "error", "words"),
    [
        ("screen", "linux", {}, SourceMissing, "DISPLAY is not set; name the display"),
        ("screen", "linux", {"WAYLAND_DISPLAY": "wayland-0"}, SourceMissing, "`browser`"),
        ("screen:1+1,2,3x4", "darwin", {}, SourceInvalid, "a region cannot be chosen"),
        ("screen:one", "darwin", {}, SourceInvalid, "not the number"),
        ("screen:1", "win32", {}, SourceInvalid, "one desktop"),
        ("screen:", "linux", {}, SourceInvalid, "not a screen"),
        ("screen:0+-1,0,8x6", "linux", {}, SourceInvalid, "not a screen"),
        ("screen", "sunos", {}, SourceInvalid, "not supported on sunos"),
    ],
)
def test_screens_that_cannot_be_read(
    text: str, platform: str, environment: dict[str, str], error: type[SourceError], words: str
) -> None:
    """The message says what to write instead."""
    with pytest.raises(error, match=words):
        parse_screen(text, platform, environment)


def test_other_texts_are_no_screens() -> None:
    """A file may be called like a screen."""
    assert is_screen("screen+1")
    assert not is_screen("screens.mp4")
    assert not is_screen("screen.mp4")
