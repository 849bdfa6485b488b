"""Tests of the search for video files."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.input.files import VIDEO_SUFFIXES, video_files
from streams.input.source import parse_source


def test_video_files_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    """Suffixes match in any case; hidden files and directories and other suffixes are left out."""
    names = ["b/two.MOV", "a.mp4", "b/c/one.ogv", "b/notes.txt", ".hidden/x.mp4", "b/._y.mp4", "film.bin"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in video_files(tmp_path)]
    assert found == ["a.mp4", "b/c/one.ogv", "b/two.MOV"]


def test_linked_directories_are_searched_once(tmp_path: Path) -> None:
    """Links to directories are followed; a link to a directory above does not loop."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "own").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (data / "own" / "a.mp4", elsewhere / "b.mp4"):
        path.touch()
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere)
    (data / "own" / "up").symlink_to(data)
    found = [str(path.relative_to(data)) for path in video_files(data)]
    assert found == ["again/b.mp4", "own/a.mp4"]


@pytest.mark.parametrize("suffix", [".vob", ".h264", ".hevc", ".m2v", ".3g2", ".gif", ".mjpeg", ".F4V"])
def test_files_of_every_common_suffix_are_found(suffix: str, tmp_path: Path) -> None:
    """Suffixes of older cameras, discs and raw streams count as videos."""
    (tmp_path / f"clip{suffix}").touch()
    assert [path.name for path in video_files(tmp_path)] == [f"clip{suffix}"]


def test_a_missing_directory_has_no_video_files(tmp_path: Path) -> None:
    """The caller decides whether a missing directory is an error."""
    assert list(video_files(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES - {".mjpeg", ".mjpg"}))
def test_a_video_file_on_a_web_server_is_finite(suffix: str) -> None:
    """A URL with a video suffix is read to its end, not as a live camera."""
    assert not parse_source(f"http://host/clip{suffix}").live
