"""The user's cache folder for compiled engines and optimised graphs, and the check of its permissions."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CACHE_VARIABLE = "UNMASK_CACHE"
"""Environment variable that names another cache folder."""


def cache_folder() -> Path:
    """Return `$UNMASK_CACHE`, else the platform's cache folder for unmask, such as `~/.cache/unmask`."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    # Imported late: machines that only run TensorRT lack the package, and set the variable.
    import platformdirs

    return platformdirs.user_cache_path("unmask", appauthor=False)


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents, accessible to this user only.

    Raises:
        OSError: A folder cannot be created.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(mode=0o700, exist_ok=True)


def exposed_part(path: Path) -> Path | None:
    """Return the part of a path through which another user could replace its content; None if there is none.

    Every part must belong to this user or to root. The last two parts must be writable by their owner only,
    the parts above by the user's own group at most. Sticky folders such as `/tmp` are accepted anywhere.
    Nothing is checked on Windows, whose permissions differ.

    Args:
        path: File or folder; parts that do not exist are not checked.

    Raises:
        OSError: A folder on the way cannot be searched.
    """
    if not hasattr(os, "getuid"):
        return None
    # The path as given and its target, because both a link and the file that it points to can be replaced.
    for whole in (path.absolute(), path.resolve()):
        for part in (whole, *whole.parents):
            try:
                status = part.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            if _is_exposed(status, strict=part in (whole, whole.parent)):
                return part
    return None


def _is_exposed(status: os.stat_result, *, strict: bool) -> bool:
    if status.st_uid not in (0, os.getuid()):
        return True
    if stat.S_ISLNK(status.st_mode):
        return False
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        # Entries of a sticky folder can only be replaced by their owner.
        return False
    if strict or not _is_own_group(status.st_gid):
        return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return bool(status.st_mode & stat.S_IWOTH)


def _is_own_group(group_id: int) -> bool:
    """Return whether a group is the user's private one, which many systems create, without other members."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(group_id)
    except KeyError:
        return False
    return group_id == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
