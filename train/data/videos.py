"""Videos of a data set, with label, method, group and split, and the error of an unknown layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.data.splits import Split
from train.errors import PathError


class LayoutError(PathError):
    """A data set that is not laid out as expected."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Video of a data set.

    Args:
        path: The file, which has not been opened yet.
        name: Name, unique within the data set, of letters, digits, `_` and `-`; clip names start with it.
        fake: Whether it is fake.
        method: Method that made the fake; of a real video, the part of the data set that it comes from.
        target: Original video that a fake was made from; of a real video, the video itself.
        source: Person or video whose face was put in; empty if there is none or it is unknown.
        group: Name of the group; all videos of a group must be in the same split.
        split: `train`, `val` or `test`; `unused` if every split would leak; None if not decided yet.
        data_set: Name of the data set in a manifest of several; empty if it is not stated.
    """

    path: Path
    name: str
    fake: bool
    method: str
    target: str
    source: str = ""
    group: str
    split: Split | None = None
    data_set: str = ""
