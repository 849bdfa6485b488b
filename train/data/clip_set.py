"""Reads labelled face clips: what `prepare` writes, and sets of single face crops.

    clips.csv     shard,clip,fake,method,group,frames[,split,sample_hz,native_face_height_px,…]
    labels.csv    shard,file,fake,group[,split,native_height]: one crop per video

Frames lie in tar shards as `<clip>.<NN>.jpg` (WebDataset) or `<clip>/<NN>.jpg`.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.published import DFDC_NOTE

# Where a set has no `prepared.json`: what the sets of these forms that are about have.
MARGINS = {"clips.csv": 1.3, "labels.csv": 1.02}


class ClipSetError(ValueError):
    """Says that a set of clips cannot be read.

    Args:
        path: The file at fault.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; copy or prepare the set again"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Holds one line of a set's index.

    Args:
        shard: The tar file.
        clip: Its name.
        video: The name of the video it was cut from.
        fake: Whether it is forged.
        method: How; for a real one where it comes from.
        group: What it belongs with.
        split: `train`, `val`, `test`; empty if the set does not say.
        frames: How many crops it has.
        height: Of the face box in pixels of the video; 0 if not known.
        sample_hz: Crops per second; 0 if not known.
    """

    shard: str
    clip: str
    video: str
    fake: bool
    method: str
    group: str
    split: str
    frames: int
    height: float
    sample_hz: float


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """Holds the index of a set of clips.

    Args:
        folder: Where it is.
        entries: One per clip.
        margin: Side of its crops over the height of the face box.
        notes: What a reader of figures on it should know.
    """

    folder: Path
    entries: tuple[Entry, ...]
    margin: float
    notes: tuple[str, ...] = ()

    def splits(self) -> set[str]:
        """Tell which splits the index names.

        Returns:
            Their names.
        """
        return {entry.split for entry in self.entries if entry.split}


@dataclass(frozen=True, kw_only=True)
class LabelledClip:
    """Holds a clip with what is known of it.

    Args:
        clip: Its name.
        video: The name of the video it was cut from.
        fake: Whether it is forged.
        method: How; for a real one where it comes from.
        group: What it belongs with.
        height: Of the face box in pixels of the video.
        margin: Side of the crop over the height of the face box.
        frames: (T, H, W, 3) RGB uint8, oldest first.
    """

    clip: str
    video: str
    fake: bool
    method: str
    group: str
    height: float
    margin: float
    frames: NDArray[np.uint8]


def is_clip_set(folder: Path) -> bool:
    """Tell whether a folder holds a set of clips.

    Args:
        folder: Any path.

    Returns:
        Whether an index is in it.
    """
    return any((folder / index).is_file() for index in MARGINS)


def read_clip_set(folder: Path) -> ClipSet:
    """Read the index of a set.

    Args:
        folder: Holds `clips.csv` or `labels.csv` and the shards.

    Returns:
        The set.

    Raises:
        ClipSetError: The index is missing, lacks a column or holds something impossible.
    """
    index = next((name for name in MARGINS if (folder / name).is_file()), None)
    if index is None:
        raise ClipSetError(folder, f"holds no {' or '.join(MARGINS)}")
    path, margin = folder / index, MARGINS[index]
    notes: tuple[str, ...] = ()
    about = folder / "prepared.json"
    if about.is_file():
        try:
            stated = json.loads(about.read_text(encoding="utf-8"))
            margin, notes = float(stated["spec"]["margin"]), tuple(map(str, stated["notes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ClipSetError(about, f"is not what `prepare` writes ({type(error).__name__})") from error
    elif "dfdc" in folder.resolve().name.lower():
        notes = (DFDC_NOTE,)
    stills = index == "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            entries = tuple(_entry(row, margin, stills=stills) for row in csv.DictReader(file))
    except (KeyError, ValueError) as error:
        raise ClipSetError(path, f"a line cannot be read ({error})") from error
    if not entries:
        raise ClipSetError(path, "names no clip")
    return ClipSet(folder=folder, entries=entries, margin=margin, notes=notes)


def _entry(row: Mapping[str, str], margin: float, *, stills: bool) -> Entry:
    if row["fake"] not in ("0", "1"):
        raise ValueError(f"fake is {row['fake']!r}, not 0 or 1")
    if stills:
        stem = Path(row["file"]).stem
        return Entry(
            shard=row["shard"],
            clip=stem,
            video=stem,
            fake=row["fake"] == "1",
            method=row.get("method") or ("fake" if row["fake"] == "1" else "real"),
            group=row["group"],
            split=row.get("split", ""),
            frames=1,
            height=float(row.get("native_height") or 0) / margin,
            sample_hz=0.0,
        )
    return Entry(
        shard=row["shard"],
        clip=row["clip"],
        video=row["clip"].rpartition("_")[0] or row["clip"],
        fake=row["fake"] == "1",
        method=row["method"],
        group=row["group"],
        split=row.get("split", ""),
        frames=int(row["frames"]),
        height=float(row.get("native_face_height_px") or 0),
        sample_hz=float(row.get("sample_hz") or 0),
    )


def load_clips(clip_set: ClipSet, entries: Iterable[Entry]) -> Iterator[LabelledClip]:
    """Read clips from the shards of a set.

    Args:
        clip_set: The set.
        entries: Which of its clips; neighbours in a shard are best read one after the other.

    Returns:
        The clips, in the same order.

    Raises:
        ClipSetError: A shard or a frame is missing or broken.
    """
    indices: dict[str, dict[str, tuple[int, int]]] = {}
    for entry in entries:
        path = clip_set.folder / entry.shard
        if entry.shard not in indices:
            indices[entry.shard] = _index(path)
        yield LabelledClip(
            clip=entry.clip,
            video=entry.video,
            fake=entry.fake,
            method=entry.method,
            group=entry.group,
            height=entry.height,
            margin=clip_set.margin,
            frames=_frames(path, indices[entry.shard], entry),
        )


def _index(shard: Path) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            return {member.name: (member.offset_data, member.size) for member in tar}
    except (OSError, tarfile.TarError) as error:
        raise ClipSetError(shard, f"cannot be read ({error})") from error


def _frames(shard: Path, index: Mapping[str, tuple[int, int]], entry: Entry) -> NDArray[np.uint8]:
    single, dotted = f"{entry.clip}.jpg", [f"{entry.clip}.{i:02}.jpg" for i in range(entry.frames)]
    slashed = [f"{entry.clip}/{i:02}.jpg" for i in range(entry.frames)]
    names = next((names for names in (dotted, slashed, [single]) if names[0] in index), dotted)
    frames = []
    with shard.open("rb") as file:
        for name in names:
            if name not in index:
                raise ClipSetError(shard, f"{name} is not in it")
            offset, size = index[name]
            file.seek(offset)
            picture = cv2.imdecode(np.frombuffer(file.read(size), np.uint8), cv2.IMREAD_COLOR)
            if picture is None:
                raise ClipSetError(shard, f"{name} is not a picture")
            frames.append(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8))
    return np.stack(frames)
