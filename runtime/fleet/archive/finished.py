"""Lines of a scan that was interrupted, and the continuation of their file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from runtime.errors import ResumeFailed, os_reason

BEGINNING = b'{"file": "'
"""Beginning of every line of a scan."""


@dataclass
class FinishedFiles:
    """Files that have a line already.

    Args:
        files: Paths in the lines.
        unreadable: Number of lines about files that could not be read.
    """

    files: set[str] = field(default_factory=set)
    unreadable: int = 0

    def add(self, line: bytes) -> bool:
        """Add a line; return whether it is one of a scan."""
        try:
            value: Any = json.loads(line)
        except ValueError:
            return False
        if not (isinstance(value, dict) and isinstance(value.get("file"), str) and "state" in value):
            return False
        self.files.add(value["file"])
        self.unreadable += value["state"] == "unreadable"
        return True

    def without(self, files: Iterable[Path]) -> list[Path]:
        """Return the files that have no line yet, in their order."""
        return [file for file in files if str(file) not in self.files]


def read_finished(path: Path) -> FinishedFiles:
    """Read the lines of an earlier scan, and cut off a last line that was not written to its end.

    Args:
        path: File of JSON lines; it does not have to exist.

    Raises:
        ResumeFailed: The file cannot be read or written, or contains something else.
    """
    finished = FinishedFiles()
    try:
        with path.open("r+b") as file:
            whole = 0
            for number, line in enumerate(file, start=1):
                ended = line.endswith(b"\n")
                if line.strip() and not finished.add(line):
                    if ended or line[: len(BEGINNING)] != BEGINNING[: len(line)]:
                        raise ResumeFailed(path, f"line {number} is not a line of `unmask scan --json`")
                    file.truncate(whole)
                    break
                whole += len(line)
                if not ended:
                    file.seek(0, os.SEEK_END)
                    file.write(b"\n")
    except FileNotFoundError:
        return finished
    except OSError as error:
        raise ResumeFailed(path, os_reason(error)) from error
    return finished


def open_continued(path: Path, standard_output: IO[str]) -> IO[str] | None:
    """Open the file of an earlier scan to append to it; None if standard output is that file already.

    Args:
        path: The file.
        standard_output: Where lines are printed.

    Raises:
        ResumeFailed: It cannot be written.
    """
    try:
        file = path.open("a", encoding="ascii")
    except OSError as error:
        raise ResumeFailed(path, os_reason(error)) from error
    try:
        same = os.path.sameopenfile(file.fileno(), standard_output.fileno())
    except (OSError, ValueError):
        same = False
    if same:
        file.close()
        return None
    return file
