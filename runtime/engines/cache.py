"""The user's cache folder, where engines keep what they have prepared for this machine."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "UNMASK_CACHE"
"""Environment variable that names another cache folder."""


def cache_folder() -> Path:
    """Return `$UNMASK_CACHE`, else the platform's cache folder for unmask, such as `~/.cache/unmask`."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    # Imported late: the machines that only build TensorRT engines name their folder and lack the package.
    import platformdirs

    return platformdirs.user_cache_path("unmask", appauthor=False)


def is_private(folder: Path) -> bool:
    """Return whether nobody but the user can write to a folder; True on Windows, which has other permissions.

    Raises:
        OSError: The folder does not exist.
    """
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
