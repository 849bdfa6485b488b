"""Atomic writing: whole or not at all, and nothing left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime.files import atomic_path, check_folder_writable, check_writable, write_atomically


@pytest.mark.parametrize("content", ["größer\r\n", b"\x00\xff"])
def test_content_replaces_what_was_there(tmp_path: Path, content: str | bytes) -> None:
    """Text is written as UTF-8 with its line ends; only the target is left in the folder."""
    path = tmp_path / "file.json"
    path.write_text("before")
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["file.json"]


def test_an_error_keeps_the_old_content(tmp_path: Path) -> None:
    """An exception in the block leaves the target untouched and removes the draft."""
    path = tmp_path / "state.pt"
    path.write_text("before")

    def fail() -> None:
        with atomic_path(path) as draft:
            assert (draft.parent, draft.suffix) == (tmp_path, ".pt")
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """No folder is created for a mistyped path."""
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none/file", "text")


def test_writing_is_checked_without_a_trace(tmp_path: Path) -> None:
    """An existing file stays; a missing folder, a directory or a folder of the system is an error."""
    path = tmp_path / "file"
    check_writable(path)
    assert os.listdir(tmp_path) == []
    path.write_text("before")
    check_writable(path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]
    for wrong in (tmp_path, tmp_path / "none/file", path / "file"):
        with pytest.raises(OSError, match=r"No such file|Is a directory|Not a directory"):
            check_writable(wrong)


def test_a_folder_is_checked_without_a_trace(tmp_path: Path) -> None:
    """It may be missing with its parents, but must not be, or be in, a file."""
    check_folder_writable(tmp_path)
    check_folder_writable(tmp_path / "a/b")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/a/b"):
        with pytest.raises(NotADirectoryError):
            check_folder_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links and pipes")
def test_links_are_followed_and_pipes_written(tmp_path: Path) -> None:
    """A symbolic link stays one; a named pipe, as `/dev/stdout` may be, is not replaced by a file."""
    (tmp_path / "target").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable(tmp_path / "pipe")
        write_atomically(tmp_path / "pipe", "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """A written file is as readable for others as any other new file."""
    write_atomically(tmp_path / "written", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
