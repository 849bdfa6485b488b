"""The video file suffixes that the whole project knows, and the search for video files below a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["VIDEO_SUFFIXES", "video_files"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".ogv", ".ts", ".webm", ".wmv",
})
# fmt: on


def video_files(directory: Path) -> Iterator[Path]:
    """Find the video files below a directory by their suffix, at any depth, in the order of their paths.

    Files and directories whose name starts with a dot are left out; macOS writes `._name.mp4` files that are
    no videos. A directory that does not exist has no files.

    Yields:
        Paths that start with `directory`.
    """
    found: list[Path] = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES
        ]
    yield from sorted(found)
