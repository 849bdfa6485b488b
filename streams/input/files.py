"""Suffixes of video files, and the search for video files below a directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["VIDEO_SUFFIXES", "video_files"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avi", ".divx", ".dv", ".evo", ".f4v", ".flv",
    ".gif", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg",
    ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut", ".obu",
    ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv",
    ".y4m",
})
# fmt: on


def video_files(directory: Path, *, on_error: Callable[[OSError], None] = lambda _: None) -> Iterator[Path]:
    """Find the video files below a directory by their suffix, at any depth, in the order of their paths.

    Files and directories whose name starts with a dot are skipped, such as the `._name.mp4` files of macOS,
    which are not videos, and so is what is not a regular file, such as a FIFO, which may never end. A link
    without a target is kept, so that it is reported. Symbolic links to directories are followed, each
    directory once. A directory that does not exist has no files.

    Args:
        directory: Where to search.
        on_error: Called with the error of each directory that cannot be listed; `filename` is its path.

    Yields:
        Paths that start with `directory`.
    """
    found: list[Path] = []
    # A directory is known by its real path, so that a link to a directory above it ends the search there.
    known = {os.path.realpath(directory)}
    for folder, subfolders, names in os.walk(directory, onerror=on_error, followlinks=True):
        visible = [name for name in subfolders if not name.startswith(".")]
        subfolders[:] = _unvisited(folder, visible, known)
        found += [
            Path(folder, name)
            for name in names
            if not name.startswith(".")
            and Path(name).suffix.lower() in VIDEO_SUFFIXES
            and _may_be_file(os.path.join(folder, name))
        ]
    yield from sorted(found)


def _may_be_file(path: str) -> bool:
    return os.path.isfile(path) or not os.path.exists(path)


def _unvisited(folder: str, subfolders: list[str], known: set[str]) -> Iterator[str]:
    """Yield the subfolders whose real directory is not in `known`, links last, and add them to it."""
    for name in sorted(subfolders, key=lambda name: os.path.islink(os.path.join(folder, name))):
        real = os.path.realpath(os.path.join(folder, name))
        if real not in known:
            known.add(real)
            yield name
