"""Tests of the search for video files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from streams.input.files import video_files


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


def test_directories_that_cannot_be_listed_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the others are found; the caller learns which directory is missing."""
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    list_directory = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return list_directory(path)

    monkeypatch.setattr(os, "scandir", refuse)
    errors: list[OSError] = []
    assert list(video_files(tmp_path, on_error=errors.append)) == [tmp_path / "open/a.mp4"]
    assert [error.filename for error in errors] == [str(tmp_path / "closed")]


@pytest.mark.parametrize("suffix", [".vob", ".h264", ".hevc", ".m2v", ".3g2", ".gif", ".mjpeg", ".F4V"])
def test_files_of_every_common_suffix_are_found(suffix: str, tmp_path: Path) -> None:
    """Suffixes of older cameras, discs and raw streams count as videos."""
    (tmp_path / f"clip{suffix}").touch()
    assert [path.name for path in video_files(tmp_path)] == [f"clip{suffix}"]


def test_only_regular_files_are_found(tmp_path: Path) -> None:
    """A FIFO would never end; a link without a target is found, so that it is reported."""
    (tmp_path / "a.mp4").touch()
    (tmp_path / "linked.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "linked-pipe.mp4").symlink_to(tmp_path / "pipe.mp4")
    assert [path.name for path in video_files(tmp_path)] == ["a.mp4", "dangling.mp4", "linked.mp4"]


def test_a_missing_directory_has_no_video_files(tmp_path: Path) -> None:
    """The caller decides whether a missing directory is an error."""
    assert list(video_files(tmp_path / "nowhere")) == []
