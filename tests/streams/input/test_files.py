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


def test_a_missing_directory_has_no_video_files(tmp_path: Path) -> None:
    """The caller decides whether a missing directory is an error."""
    assert list(video_files(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_a_video_file_on_a_web_server_is_finite(suffix: str) -> None:
    """A URL with a video suffix is read to its end, not as a live camera."""
    assert not parse_source(f"http://host/clip{suffix}").live
