"""Atomic replacement of files: readers see the old or the new content, also after an interrupted write.

write_atomically(path, "text or bytes")
with atomic_path(path) as draft:              # for libraries that take a path
    torch.save(state, draft)
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Args:
        path: Target in an existing folder. A symbolic link is followed; a device or pipe is written directly.
        content: Bytes, or text to write as UTF-8 with its line ends unchanged.

    Raises:
        OSError: The file cannot be written; what was there before stays.
    """
    with atomic_path(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path) -> None:
    """Check that `write_atomically` can write a file, before work whose result would be lost.

    Args:
        path: The target; what is there stays, and nothing is left if there is nothing.

    Raises:
        OSError: The file cannot be written.
    """
    target = path.resolve()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not _is_written_directly(target):
        draft = _draft_of(target)
        draft.touch(exist_ok=False)
        draft.unlink()
    elif not os.access(target, os.W_OK):  # not opened: a pipe may have no reader yet
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def check_folder_writable(folder: Path) -> None:
    """Check that files can be made in a folder, before work whose result would be lost; nothing is created.

    Args:
        folder: The folder; it may be missing, and so may its parents.

    Raises:
        OSError: It is no folder, or it or the parent to create it in cannot be written.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))


def is_one_of(path: Path, others: Iterable[Path]) -> bool:
    """Return whether a path leads, by whatever name or link, to the same regular file as one of others.

    Args:
        path: The path; it need not exist.
        others: Paths that need not exist either.
    """
    return path.is_file() and any(other.is_file() and path.samefile(other) for other in others)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which replaces `path` when the block ends without an exception.

    Args:
        path: Target in an existing folder. A symbolic link is followed; a device or pipe is yielded itself.

    Yields:
        A new name in the same folder, with the same suffix. It is synchronised to disk before it replaces the
        target, and removed if the block raises.

    Raises:
        OSError: The draft cannot be synchronised or moved; what was there before stays.
    """
    target = path.resolve()
    if _is_written_directly(target):
        yield path
        return
    draft = _draft_of(target)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _is_written_directly(target: Path) -> bool:
    """Return whether a target, such as a device or pipe, must not be replaced by a file."""
    return target.exists() and not target.is_file()


def _draft_of(target: Path) -> Path:
    return target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
