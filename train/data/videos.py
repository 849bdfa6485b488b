"""What a data set says of its videos: file, label, forger, group and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.data.splits import Split


class LayoutError(ValueError):
    """Says that a data set is not laid out as expected; `str()` is one line that says what to do.

    Args:
        path: The file or folder at fault.
        reason: What is wrong with it, without a full stop.
        advice: What to do.
    """

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(path, reason, advice)
        self.path = path
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.advice}"


@dataclass(frozen=True, kw_only=True)
class Video:
    """Holds what a data set says of one video.

    Args:
        path: The file; it may turn out missing or unreadable.
        name: Unique within the data set, of letters, digits, `_` and `-`; the stem of its clips' names.
        fake: Whether it is forged.
        method: How it was forged; for a real one the part of the data set that it comes from.
        target: The original whose picture it shows.
        source: Whose face was put in; empty where there is none or it is not known.
        group: What must stay on one side of any split.
        split: `train`, `val`, `test`, `unused` where no side could take it without a leak; None: not settled.
    """

    path: Path
    name: str
    fake: bool
    method: str
    target: str
    source: str = ""
    group: str
    split: Split | None = None
