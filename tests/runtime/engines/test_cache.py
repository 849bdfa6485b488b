"""The cache folder: where it is, and who may write to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtime.engines.cache import cache_folder, is_private


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize(("mode", "private"), [(0o700, True), (0o755, True), (0o770, False), (0o777, False)])
def test_a_folder_that_others_can_write_is_not_private(tmp_path: Path, mode: int, private: bool) -> None:
    """Others may read a private folder but not write to it."""
    tmp_path.chmod(mode)
    assert is_private(tmp_path) is private
