"""Folder of uploaded videos and their reports, which ends with the program."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streams.text import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = "unmask-uploads-"
MAX_NAME = 100
# No safe name of a video begins with a dot.
REPORTS = {"html": ".report.html", "json": ".report.json"}
_UNSAFE = re.compile(r"[^\w. ()+-]", re.ASCII)


def safe_name(name: str) -> str:
    """Return a file name without folders and without characters that have a meaning to any program.

    Args:
        name: Name that a client has sent.
    """
    last = re.split(r"[/\\]", name)[-1]
    cleaned = _UNSAFE.sub("_", printable(last, 1000)).strip(" .")
    # FFmpeg, and a user's shell, would read a leading dash as an option.
    cleaned = cleaned.lstrip("-. ") or "video"
    stem, dot, suffix = cleaned.rpartition(".")
    if not dot or len(suffix) > 8:
        return cleaned[:MAX_NAME]
    return f"{stem[: MAX_NAME - len(suffix) - 1]}.{suffix}"


class UploadFolder:
    """Temporary folder that only this user can read; use it in `with`.

    Folders that a killed program has left behind are deleted on entering.

    Args:
        parent: Existing folder to create it in; None for the system's folder of temporary files.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = Path(tempfile.gettempdir()) if parent is None else parent
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._delete_left_behind()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
        self._lock = (self.path / "lock").open("wb")
        if fcntl is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def free_bytes(self) -> int:
        """Free space on its disk."""
        return shutil.disk_usage(self.path).free

    def new(self, job_id: str) -> Path:
        """Create and return the folder of a job."""
        folder = self.path / job_id
        folder.mkdir(mode=0o700)
        return folder

    def delete(self, job_id: str) -> None:
        """Delete the folder of a job."""
        shutil.rmtree(self.path / job_id, ignore_errors=True)

    def _delete_left_behind(self) -> None:
        if fcntl is None:
            return
        for folder in self._parent.glob(f"{PREFIX}*"):
            try:
                with (folder / "lock").open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # in use, or of another user
