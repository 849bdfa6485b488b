"""Sets of labelled face clips: the output of `unmask train prepare`, and sets of single face crops.

    clip_set = read_clip_set(Path("clips"))
    for clip in load_clips(clip_set, clip_set.entries):
        print(clip.video, clip.fake, clip.frames.shape)

A set is a folder with tar shards and one of two indices:

    clips.csv     shard,clip,fake,method,group,frames[,split,sample_hz,native_face_height_px,…]
    labels.csv    shard,file,fake,group[,split,native_height], for one crop per video

`fake` is 0 or 1; `split` is `train`, `val` or `test`, or empty. Frames in the shards are named
`<clip>.<NN>.jpg` (WebDataset) or `<clip>/<NN>.jpg`, single crops as in the column `file`. `prepared.json`, if
present, states the crop margin and notes on the set.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import PathError, os_reason
from streams.features.temporal_residuals import NUM_RESIDUALS
from streams.features.temporal_residuals import VERSION as RESIDUALS_VERSION
from train.data.crops import decode_image
from train.data.published import DFDC_NOTE
from train.data.shards import RESIDUALS_SUFFIX
from train.data.splits import SPLIT_NAMES
from train.errors import TrainError

MARGINS = {"clips.csv": 1.3, "labels.csv": 1.02}
"""Index file -> crop margin of a set without `prepared.json`."""
COLUMNS = {
    "clips.csv": ("shard", "clip", "fake", "method", "group", "frames"),
    "labels.csv": ("shard", "file", "fake", "group"),
}
"""Index file -> columns that it must have."""


class ClipSetError(PathError, TrainError):
    """A set of clips that cannot be read."""

    advice = "copy or prepare the set again"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Clip in the index of a set.

    Args:
        shard: Name of the tar file.
        clip: Name of the clip.
        video: Name of the video it was cut from.
        fake: Whether it is fake.
        method: Method that made the fake; of a real clip, the part of the data set that it comes from.
        group: Group of the video; see `train.data.splits`.
        split: `train`, `val` or `test`; empty if the set states none.
        frames: Number of crops.
        height: Height of the face box in pixels of the video; 0 if unknown.
        sample_hz: Crops per second; 0 if unknown.
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
    """Index of a set of clips.

    Args:
        folder: Folder of the set.
        entries: One entry per clip.
        margin: Side of the crops as a multiple of the face box height.
        notes: Notes for the reader of results on this set.
        has_residuals: Whether the set contains temporal residuals of the present definition.
    """

    folder: Path
    entries: tuple[Entry, ...]
    margin: float
    notes: tuple[str, ...] = ()
    has_residuals: bool = False

    def splits(self) -> set[str]:
        """Return the names of the splits in the index; empty if the set states none."""
        return {entry.split for entry in self.entries if entry.split}


@dataclass(frozen=True, kw_only=True)
class LabelledClip:
    """Frames of a clip, with its label.

    Args:
        clip: Name of the clip.
        video: Name of the video it was cut from.
        fake: Whether it is fake.
        method: Method that made the fake; of a real clip, the part of the data set that it comes from.
        group: Group of the video; see `train.data.splits`.
        height: Height of the face box in pixels of the video; 0 if unknown.
        margin: Side of the crop as a multiple of the face box height.
        frames: RGB uint8 `(T, H, W, 3)`, oldest first.
        residuals: Temporal residuals float32 `(T, NUM_RESIDUALS)`; None if the set does not contain them.
    """

    clip: str
    video: str
    fake: bool
    method: str
    group: str
    height: float
    margin: float
    frames: NDArray[np.uint8]
    residuals: NDArray[np.float32] | None = None


def is_clip_set(folder: Path) -> bool:
    """Return whether a folder contains a set of clips, that is, one of the two indices."""
    return any((folder / index).is_file() for index in MARGINS)


def index_of(folder: Path) -> Path:
    """Return the path of the index of a set, which is not read.

    Args:
        folder: Folder with `clips.csv` or `labels.csv`.

    Raises:
        ClipSetError: The folder does not exist or contains no index.
    """
    if not folder.is_dir():
        raise ClipSetError(folder, "not a folder" if folder.exists() else "no such folder", "check the path")
    name = next((name for name in MARGINS if (folder / name).is_file()), None)
    if name is None:
        raise ClipSetError(folder, f"contains no {' or '.join(MARGINS)}")
    return folder / name


def read_clip_set(folder: Path) -> ClipSet:
    """Read the index of a set.

    Args:
        folder: Folder with `clips.csv` or `labels.csv` and the shards.

    Returns:
        The set.

    Raises:
        ClipSetError: The index is missing, lacks a column or has an invalid value.
    """
    path = index_of(folder)
    margin = MARGINS[path.name]
    notes: tuple[str, ...] = ()
    has_residuals = False
    about = folder / "prepared.json"
    if about.is_file():
        try:
            stated = json.loads(about.read_text(encoding="utf-8"))
            margin, notes = float(stated["spec"]["margin"]), tuple(map(str, stated["notes"]))
            has_residuals = stated.get("residuals") == RESIDUALS_VERSION
        except (ValueError, KeyError, TypeError) as error:
            raise ClipSetError(about, f"was not written by `prepare` ({type(error).__name__})") from error
    elif "dfdc" in folder.resolve().name.lower():
        notes = (DFDC_NOTE,)
    single_crops = path.name == "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in COLUMNS[path.name] if name not in (rows.fieldnames or ())]:
                raise ClipSetError(path, f"no column {' and '.join(missing)}")
            entries = tuple(_entry(row, margin, single_crops=single_crops) for row in rows)
    except OSError as error:
        raise ClipSetError(path, f"cannot be read ({os_reason(error)})") from error
    except (csv.Error, ValueError) as error:
        raise ClipSetError(path, f"line {rows.reader.line_num} cannot be read ({error})") from error
    if not entries:
        raise ClipSetError(path, "lists no clips")
    return ClipSet(folder=folder, entries=entries, margin=margin, notes=notes, has_residuals=has_residuals)


def _entry(row: Mapping[str, str], margin: float, *, single_crops: bool) -> Entry:
    # The CSV reader fills the last columns of a line that is too short with None.
    if None in row.values():
        raise ValueError("it has too few columns")
    if row["fake"] not in ("0", "1"):
        raise ValueError(f"fake is {row['fake']!r}, not 0 or 1")
    split = row.get("split", "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}, not train, val or test")
    if single_crops:
        stem = Path(row["file"]).stem
        return Entry(
            shard=row["shard"],
            clip=stem,
            video=stem,
            fake=row["fake"] == "1",
            method=row.get("method") or ("fake" if row["fake"] == "1" else "real"),
            group=row["group"],
            split=SPLIT_NAMES.get(split, ""),
            frames=1,
            height=_number(row, "native_height") / margin,
            sample_hz=0.0,
        )
    frames = int(row["frames"])
    if frames < 1:
        raise ValueError(f"frames is {frames}, not at least 1")
    return Entry(
        shard=row["shard"],
        clip=row["clip"],
        video=row["clip"].rpartition("_")[0] or row["clip"],
        fake=row["fake"] == "1",
        method=row["method"],
        group=row["group"],
        split=SPLIT_NAMES.get(split, ""),
        frames=frames,
        height=_number(row, "native_face_height_px"),
        sample_hz=_number(row, "sample_hz"),
    )


def _number(row: Mapping[str, str], column: str) -> float:
    """Return a number of a line; 0 if it is empty or the set has no such column."""
    number = float(row.get(column) or 0)
    if not 0 <= number < math.inf:
        raise ValueError(f"{column} is {number}, not a number from 0")
    return number


def load_clips(clip_set: ClipSet, entries: Iterable[Entry]) -> Iterator[LabelledClip]:
    """Read clips from the shards of a set.

    Args:
        clip_set: The set.
        entries: Clips to read; reading is fastest in the order of the shards.

    Returns:
        The clips, in the order of `entries`.

    Raises:
        ClipSetError: A shard or a frame is missing or broken.
    """
    for entry, shard, index in _located(clip_set, entries):
        yield LabelledClip(
            clip=entry.clip,
            video=entry.video,
            fake=entry.fake,
            method=entry.method,
            group=entry.group,
            height=entry.height,
            margin=clip_set.margin,
            frames=_frames(shard, index, entry),
            residuals=_residuals(shard, index, entry) if clip_set.has_residuals else None,
        )


def load_residuals(clip_set: ClipSet, entries: Iterable[Entry]) -> Iterator[NDArray[np.float32]]:
    """Read the temporal residuals of clips without their frames.

    Args:
        clip_set: The set; `has_residuals` must be true.
        entries: Clips to read.

    Returns:
        float32 `(T, NUM_RESIDUALS)` of each clip, in the order of `entries`.

    Raises:
        ClipSetError: A shard is missing or broken.
    """
    for entry, shard, index in _located(clip_set, entries):
        yield _residuals(shard, index, entry)


def _located(
    clip_set: ClipSet, entries: Iterable[Entry]
) -> Iterator[tuple[Entry, Path, dict[str, tuple[int, int]]]]:
    """Return each clip with the path of its shard and the offsets and sizes of the files in it."""
    indices: dict[str, dict[str, tuple[int, int]]] = {}
    for entry in entries:
        shard = clip_set.folder / entry.shard
        if entry.shard not in indices:
            indices[entry.shard] = _index(shard)
        yield entry, shard, indices[entry.shard]


def _index(shard: Path) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            return {member.name: (member.offset_data, member.size) for member in tar}
    except (OSError, tarfile.TarError) as error:
        raise ClipSetError(shard, f"cannot be read ({error})") from error


def _residuals(shard: Path, index: Mapping[str, tuple[int, int]], entry: Entry) -> NDArray[np.float32]:
    name = f"{entry.clip}.{RESIDUALS_SUFFIX}"
    if name not in index:
        raise ClipSetError(shard, f"{name} is not in it")
    offset, size = index[name]
    with shard.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    try:
        residuals = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ClipSetError(shard, f"{name} cannot be read ({error})") from error
    if residuals.shape != (entry.frames, NUM_RESIDUALS):
        raise ClipSetError(shard, f"{name} has the shape {residuals.shape}")
    return np.asarray(residuals, np.float32)


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
            image = decode_image(file.read(size))
            if image is None:
                raise ClipSetError(shard, f"{name} is not an image")
            frames.append(image)
    return np.stack(frames)
