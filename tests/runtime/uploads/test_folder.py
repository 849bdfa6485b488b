"""Tests of the folder of uploads and of the names of files in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.uploads.folder import MAX_NAME, PREFIX, UploadFolder, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\my clip (1).MOV", "my clip (1).MOV"),
        ("..", "video"),
        ("", "video"),
        ("-i.mp4", "i.mp4"),
        (".report.html", "report.html"),
        ("a\x00b\nc.mp4", "a_b c.mp4"),
        ("http:evil.m3u8", "http_evil.m3u8"),
        ("門.mp4", "_.mp4"),
        ("x" * 500 + ".mp4", "x" * (MAX_NAME - 4) + ".mp4"),
    ],
)
def test_names(name: str, safe: str) -> None:
    """Folders, options, hidden names and characters with a meaning are removed."""
    assert safe_name(name) == safe


@given(st.text())
def test_any_name_is_safe(name: str) -> None:
    """Whatever a client sends, the result is one plain name in the folder."""
    assert re.fullmatch(r"[\w()+][\w. ()+-]*", safe_name(name), re.ASCII)
    assert len(safe_name(name)) <= MAX_NAME


def test_folder_is_private_and_ends_with_the_program(tmp_path: Path) -> None:
    """Nobody else can read it; what a killed program has left behind is deleted, what is in use is not."""
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    (left / "clip.mp4").touch()
    with UploadFolder(tmp_path) as first, UploadFolder(tmp_path) as second:
        assert not left.exists()
        assert first.path.stat().st_mode & 0o077 == 0
        assert first.new("a").is_dir()
        first.delete("a")
        assert not (first.path / "a").exists()
        assert second.free_bytes > 0
    assert list(tmp_path.iterdir()) == []
