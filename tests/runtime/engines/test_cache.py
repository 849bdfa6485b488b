"""The cache folder: where it is, and who may write to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from runtime.engines.cache import cache_folder, exposed_part, make_private


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms have other cache folders")
def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`UNMASK_CACHE` comes first, then `XDG_CACHE_HOME`, then the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNMASK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache/unmask"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/unmask"
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")


@POSIX
@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o700, False), (0o755, False), (0o770, True), (0o777, True), (0o757, True)]
)
def test_a_folder_that_others_can_write_is_exposed(tmp_path: Path, mode: int, exposed: bool) -> None:
    """Others may read the folder but not write to it; the folder is named, whether the file exists or not."""
    tmp_path.chmod(mode)
    assert exposed_part(tmp_path / "file") == (tmp_path if exposed else None)
    (tmp_path / "file").touch(mode=0o600)
    assert exposed_part(tmp_path / "file") == (tmp_path if exposed else None)
    assert exposed_part(tmp_path) == (tmp_path if exposed else None)


@POSIX
def test_folders_far_above_count_too(tmp_path: Path) -> None:
    """Whoever can rename a folder above can put another in its place; in a sticky folder nobody can."""
    folder = tmp_path / "a/b/c"
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o777)
    assert exposed_part(folder / "file") == tmp_path
    tmp_path.chmod(0o1777)
    assert exposed_part(folder / "file") is None


@POSIX
def test_links_are_followed(tmp_path: Path) -> None:
    """A private link into a folder that others can write is exposed."""
    make_private(tmp_path / "shared")
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "cache").symlink_to(tmp_path / "shared")
    assert exposed_part(tmp_path / "cache" / "file") == tmp_path / "shared"


@POSIX
@pytest.mark.parametrize("part", ["file", "."])
def test_files_of_another_user_are_exposed(
    tmp_path: Path, part: str, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    """The owner can change a file or folder whatever its mode."""
    (tmp_path / "file").touch(mode=0o600)
    assert exposed_part(tmp_path / "file") is None
    try:
        os.chown(tmp_path / part, 12345, -1)
    except PermissionError:
        skip_or_fail("only root can give files away")
    assert exposed_part(tmp_path / "file") == tmp_path / part
