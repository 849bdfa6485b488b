"""Finds the videos of a data set in the layouts that people have, with label, group and split.

folder    real/… and fake/[method/]…, optionally below train/, val/, test/
manifest  a CSV file: path,label[,group,split,method,target,source]
ffpp      FaceForensics++ as its download script leaves it, with the split JSONs
celeb-df  Celeb-DF-v2 with List_of_testing_videos.txt
dfdc      parts of the Deepfake Detection Challenge, each with its metadata.json
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from streams.input.files import video_files
from train.data.published import read_celeb_df, read_dfdc, read_ffpp
from train.data.splits import SPLIT_NAMES, Split, SplitLeak, check, components, divide, untangle
from train.data.videos import LayoutError, Video

__all__ = ["Dataset", "Layout", "LayoutError", "Video", "find_videos"]

Layout = Literal["auto", "folder", "manifest", "ffpp", "celeb-df", "dfdc"]

LABELS = {"fake": True, "1": True, "true": True, "real": False, "0": False, "false": False}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Holds the videos of a data set.

    Args:
        layout: The layout that was found.
        videos: In the order of their paths.
        notes: One line for each thing that a reader of its figures should know.
        stated: Whether the data set itself says which side a video is on, if only of some.
    """

    layout: Layout
    videos: tuple[Video, ...]
    notes: tuple[str, ...] = ()
    stated: bool = False


def find_videos(
    root: Path,
    *,
    layout: Layout = "auto",
    split: Literal["official", "group"] = "official",
    compression: str = "c23",
    seed: int = 0,
) -> Dataset:
    """Find the videos of a data set and settle the side of each.

    Args:
        root: A folder, or the CSV file of a manifest.
        layout: Which layout it has; `auto` looks.
        split: `official` keeps the split that the data set states (its JSONs, test list, `split` column,
            folders), sets aside what that would leak, and takes a tenth of the training groups if it has no
            validation set. `group` ignores it and divides the groups 80/10/10.
        compression: Of FaceForensics++: `raw`, `c23` or `c40`.
        seed: Of the division of groups.

    Returns:
        The data set.

    Raises:
        LayoutError: The folder has no known layout, or its lists contradict each other.
    """
    if not root.exists():
        raise LayoutError(root, "there is no such file or folder", "check the path")
    found: Layout = _recognise(root) if layout == "auto" else layout
    if (found == "manifest") != root.is_file():
        raise LayoutError(
            root, f"cannot be read as {found}", "a manifest is a CSV file, all others are folders"
        )
    readers: dict[str, Callable[[], tuple[list[Video], list[str]]]] = {
        "folder": lambda: _read_folder(root),
        "manifest": lambda: (_read_manifest(root), []),
        "ffpp": lambda: read_ffpp(root, compression),
        "celeb-df": lambda: read_celeb_df(root),
        "dfdc": lambda: read_dfdc(root),
    }
    videos, notes = readers[found]()
    if not videos:
        raise LayoutError(root, f"no video in it (read as {found})", "check the path or name another layout")
    videos = _named(sorted(videos, key=lambda video: video.path), root)
    if split == "group":
        videos = [replace(video, split=None) for video in videos]
    # Who writes a manifest or sorts videos into folders means it: a leak is their mistake to mend, not ours
    # to hide.
    if found in ("folder", "manifest"):
        try:
            check([v.group for v in videos], [v.split or "unused" for v in videos])
        except SplitLeak as leak:
            raise LayoutError(root, "its split leaks", str(leak)) from None
    stated = any(video.split is not None for video in videos)
    videos = _settled(videos, notes, seed=seed)
    return Dataset(layout=found, videos=tuple(videos), notes=tuple(notes), stated=stated)


def _recognise(root: Path) -> Layout:
    if root.is_file():
        return "manifest"
    names = {entry.name.lower() for entry in root.iterdir()}
    if names & {"original_sequences", "manipulated_sequences"}:
        return "ffpp"
    if names & {"celeb-real", "celeb-synthesis"}:
        return "celeb-df"
    if next(_sides(root), None) is not None:
        return "folder"
    if next(root.rglob("metadata.json"), None) is not None:
        return "dfdc"
    raise LayoutError(
        root,
        "has no known layout",
        "give a folder with real/ and fake/, a CSV manifest, or the root of FaceForensics++, Celeb-DF, DFDC",
    )


def _settled(videos: list[Video], notes: list[str], *, seed: int) -> list[Video]:
    groups = [video.group for video in videos]
    # A video without a side follows its group.
    known = {video.group: video.split for video in videos if video.split not in (None, "unused")}
    sides = [video.split or known.get(video.group) for video in videos]
    loose = [i for i, side in enumerate(sides) if side is None]
    divided = divide([groups[i] for i in loose], [videos[i].fake for i in loose], seed=seed)
    stated: list[Split] = [side or divided[group] for group, side in zip(groups, sides, strict=True)]
    settled = untangle(groups, stated)
    if aside := sum(a != b for a, b in zip(settled, stated, strict=True)):
        notes.append(f"{aside} videos are set aside: they share a group with the test or validation set")
    if "train" in known.values() and "val" not in settled:
        chosen = [i for i, side in enumerate(settled) if side == "train"]
        shares: dict[Split, float] = {"train": 0.9, "val": 0.1}
        taken = divide(
            [groups[i] for i in chosen], [videos[i].fake for i in chosen], seed=seed, shares=shares
        )
        for i in chosen:
            settled[i] = taken[groups[i]]
        notes.append("no validation set is stated: a tenth of the training groups was taken for it")
    return [replace(video, split=side) for video, side in zip(videos, settled, strict=True)]


def _named(videos: list[Video], root: Path) -> list[Video]:
    # A dot would end the key of a WebDataset sample, so names keep to letters, digits, _ and -.
    names = [re.sub(r"[^0-9A-Za-z_-]+", "-", video.name) for video in videos]
    times = Counter(name.lower() for name in names)
    base = root if root.is_dir() else root.parent
    result = []
    for video, name in zip(videos, names, strict=True):
        if times[name.lower()] > 1:
            inside = video.path.is_relative_to(base)
            key = (video.path.relative_to(base) if inside else video.path).as_posix()
            name = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        result.append(replace(video, name=name))
    return result


def _sides(root: Path) -> Iterator[tuple[Split | None, bool, Path]]:
    places: list[tuple[Split | None, Path]] = [(None, root)]
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name.lower() in SPLIT_NAMES:
            places.append((SPLIT_NAMES[entry.name.lower()], entry))
    for side, place in places:
        for entry in sorted(place.iterdir()):
            if entry.is_dir() and entry.name.lower() in ("real", "fake"):
                yield side, entry.name.lower() == "fake", entry


def _read_folder(root: Path) -> tuple[list[Video], list[str]]:
    videos = []
    for side, fake, folder in _sides(root):
        for path in video_files(folder):
            method = "-".join(path.relative_to(folder).parent.parts) or folder.name.lower()
            videos.append(
                Video(
                    path=path,
                    name=f"{method}_{path.stem}",
                    fake=fake,
                    method=method,
                    target=path.stem,
                    group=path.stem,
                    split=side,
                )
            )
    originals = {video.target for video in videos if not video.fake}
    forgeries = {video.target for video in videos if video.fake}
    # `035_036.mp4` in fake/ beside 035 and 036 in real/ is a forgery of them.
    links = [(stem, part) for stem in forgeries for part in stem.split("_") if part in originals]
    group = components([video.target for video in videos], links)
    notes = []
    if not links and not originals & forgeries:
        notes.append(
            "no forgery is named like an original (name.mp4 or name_other.mp4), so each video counts as "
            "a group of its own; if some show the same original or person, use a manifest with groups"
        )
    return [replace(video, group=group[video.group]) for video in videos], notes


def _read_manifest(path: Path) -> list[Video]:
    videos = []
    links: list[tuple[str, str]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := {"path", "label"} - set(rows.fieldnames or ()):
                raise LayoutError(
                    path,
                    f"no column {' and '.join(sorted(missing))}",
                    "the columns are path,label,group,split",
                )
            for row in rows:
                video = _manifest_row(path, rows.line_num, row)
                videos.append(video)
                if video.source and not (row.get("group") or "").strip():
                    links.append((video.group, video.source))
    except UnicodeDecodeError as error:
        raise LayoutError(path, "is not a CSV file in UTF-8", "save it as CSV in UTF-8") from error
    group = components([video.group for video in videos], links)
    return [replace(video, group=group[video.group]) for video in videos]


def _manifest_row(manifest: Path, line: int, row: dict[str, str]) -> Video:
    # A short or a long line leaves None among keys or values.
    values = {key: value.strip() for key, value in row.items() if key is not None and isinstance(value, str)}
    label, side = values.get("label", "").lower(), values.get("split", "").lower()
    if label not in LABELS:
        raise LayoutError(manifest, f"line {line}: label {label!r}", "write real or fake (or 0 and 1)")
    if side and side not in SPLIT_NAMES:
        raise LayoutError(
            manifest, f"line {line}: split {side!r}", "write train, val or test, or leave it empty"
        )
    if not values["path"]:
        raise LayoutError(manifest, f"line {line}: no path", "name a video, relative to the manifest")
    path = manifest.parent / values["path"]
    target = values.get("target", "")
    return Video(
        path=path,
        name=path.stem,
        fake=LABELS[label],
        method=values.get("method") or ("fake" if LABELS[label] else "real"),
        target=target or path.stem,
        source=values.get("source", ""),
        group=values.get("group") or target or values["path"],
        split=SPLIT_NAMES[side] if side else None,
    )
