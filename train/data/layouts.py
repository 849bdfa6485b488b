"""Videos of a data set in any supported layout, with label, group and split.

    videos = find_videos(Path("FaceForensics++")).videos

Supported layouts:

    folder    real/… and fake/[method/]…, optionally inside train/, val/ and test/
    manifest  a CSV file: path,label[,group,split,method,target,source,set]
    ffpp      FaceForensics++ as its download script writes it, with the split JSONs
    celeb-df  Celeb-DF-v2 with List_of_testing_videos.txt
    dfdc      parts of the Deepfake Detection Challenge, each with its metadata.json

In the layout `folder`, `fake/swap/035_036.mp4` belongs to the group of `real/035.mp4` and `real/036.mp4`.
In a manifest, `path` is relative to the CSV file and `label` is `real` or `fake` (or 0 and 1). Videos with
the same `group` stay in one split; without a group, `target` (the original video) and `source` (whose face
was put in) define it. Both name a real video of the manifest, by its path, file name or name without suffix,
or a person, who is the `target` of their real videos. The layouts of the published data sets are described in
`train.data.published`.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from runtime.errors import os_reason
from streams.input.files import video_files
from train.data.published import read_celeb_df, read_dfdc, read_ffpp
from train.data.splits import (
    SPLIT_NAMES,
    Split,
    SplitLeak,
    check_no_leak,
    connected_groups,
    exclude_leaks,
    split_groups,
)
from train.data.videos import LayoutError, Video

__all__ = ["Layout", "LayoutError", "Video", "VideoSet", "find_videos"]

Layout = Literal["auto", "folder", "manifest", "ffpp", "celeb-df", "dfdc"]

LABELS = {"fake": True, "1": True, "true": True, "real": False, "0": False, "false": False}


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos of a data set.

    Args:
        layout: Detected layout.
        videos: The videos, in the order of their paths.
        notes: Notes for the reader of results on this data set, one line each.
        has_official_split: Whether the data set states the split of at least some videos.
    """

    layout: Layout
    videos: tuple[Video, ...]
    notes: tuple[str, ...] = ()
    has_official_split: bool = False


def find_videos(
    root: Path,
    *,
    layout: Layout = "auto",
    split: Literal["official", "group"] = "official",
    compression: str = "c23",
    seed: int = 0,
) -> VideoSet:
    """Find the videos of a data set and decide the split of each.

    Args:
        root: A folder, or the CSV file of a manifest.
        layout: Layout of the data set; `auto` detects it.
        split: `official` uses the split that the data set states (JSONs, test list, `split` column, folders),
            excludes videos that would leak, and takes a tenth of the training groups for validation if there
            is no validation split; a manifest is taken at its word. `group` ignores the official split and
            divides the groups 80/10/10.
        compression: Compression of FaceForensics++: `raw`, `c23` or `c40`.
        seed: Seed of the division of groups.

    Returns:
        The videos.

    Raises:
        LayoutError: The layout is unknown, or lists of the data set contradict each other.
    """
    if not root.exists():
        raise LayoutError(root, "no such file or folder", "check the path")
    found: Layout = _detect_layout(root) if layout == "auto" else layout
    if (found == "manifest") != root.is_file():
        raise LayoutError(
            root, f"cannot be read as {found}", "a manifest is a CSV file, all others are folders"
        )
    readers: dict[str, Callable[[], tuple[list[Video], list[str]]]] = {
        "folder": lambda: _read_folder(root),
        "manifest": lambda: _read_manifest(root),
        "ffpp": lambda: read_ffpp(root, compression),
        "celeb-df": lambda: read_celeb_df(root),
        "dfdc": lambda: read_dfdc(root),
    }
    videos, notes = readers[found]()
    if not videos:
        raise LayoutError(root, f"no video found (read as {found})", "check the path or name another layout")
    videos = _named(sorted(videos, key=lambda video: video.path), root)
    if split == "group":
        videos = [replace(video, split=None) for video in videos]
    # A leak in the user's own split is an error to report; leaks in published splits are excluded.
    if found in ("folder", "manifest"):
        try:
            check_no_leak([v.group for v in videos], [v.split or "unused" for v in videos])
        except SplitLeak as leak:
            raise LayoutError(root, "its split leaks", str(leak)) from None
    official = any(video.split is not None for video in videos)
    videos = _with_splits(videos, notes, add_validation=found != "manifest", seed=seed)
    return VideoSet(layout=found, videos=tuple(videos), notes=tuple(notes), has_official_split=official)


def _detect_layout(root: Path) -> Layout:
    if root.is_file():
        return "manifest"
    names = {entry.name.lower() for entry in root.iterdir()}
    if names & {"original_sequences", "manipulated_sequences"}:
        return "ffpp"
    if names & {"celeb-real", "celeb-synthesis"}:
        return "celeb-df"
    if next(_label_folders(root), None) is not None:
        return "folder"
    if next(root.rglob("metadata.json"), None) is not None:
        return "dfdc"
    raise LayoutError(
        root,
        "has no known layout",
        "give a folder with real/ and fake/, a CSV manifest, or the root of FaceForensics++, Celeb-DF, DFDC",
    )


def _with_splits(videos: list[Video], notes: list[str], *, add_validation: bool, seed: int) -> list[Video]:
    groups = [video.group for video in videos]
    # A video without a split gets the split of its group.
    known = {video.group: video.split for video in videos if video.split not in (None, "unused")}
    official = [video.split or known.get(video.group) for video in videos]
    undecided = [i for i, split in enumerate(official) if split is None]
    divided = split_groups([groups[i] for i in undecided], [videos[i].fake for i in undecided], seed=seed)
    stated: list[Split] = [split or divided[group] for group, split in zip(groups, official, strict=True)]
    splits = exclude_leaks(groups, stated)
    if excluded := sum(a != b for a, b in zip(splits, stated, strict=True)):
        notes.append(f"{excluded} videos are excluded: they share a group with the test or validation split")
    if add_validation and "train" in known.values() and "val" not in splits:
        training = [i for i, split in enumerate(splits) if split == "train"]
        shares: dict[Split, float] = {"train": 0.9, "val": 0.1}
        divided = split_groups(
            [groups[i] for i in training], [videos[i].fake for i in training], seed=seed, shares=shares
        )
        for i in training:
            splits[i] = divided[groups[i]]
        notes.append("the data set has no validation split: a tenth of the training groups is used for it")
    return [replace(video, split=split) for video, split in zip(videos, splits, strict=True)]


def _named(videos: list[Video], root: Path) -> list[Video]:
    # A dot would end the key of a WebDataset sample.
    names = [re.sub(r"[^0-9A-Za-z_-]+", "-", video.name) for video in videos]
    times = Counter(name.lower() for name in names)
    base = root if root.is_dir() else root.parent
    result = []
    for video, name in zip(videos, names, strict=True):
        if times[name.lower()] > 1:
            name = f"{name}-{hashlib.sha256(_text(video.path, base).encode()).hexdigest()[:8]}"
        result.append(replace(video, name=name))
    return result


def _text(path: Path, base: Path) -> str:
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _label_folders(root: Path) -> Iterator[tuple[Split | None, bool, Path]]:
    """Yield split, label and path of every folder `real` and `fake`."""
    parents: list[tuple[Split | None, Path]] = [(None, root)]
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name.lower() in SPLIT_NAMES:
            parents.append((SPLIT_NAMES[entry.name.lower()], entry))
    for split, parent in parents:
        for entry in sorted(parent.iterdir()):
            if entry.is_dir() and entry.name.lower() in ("real", "fake"):
                yield split, entry.name.lower() == "fake", entry


def _read_folder(root: Path) -> tuple[list[Video], list[str]]:
    videos = []
    for split, fake, folder in _label_folders(root):
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
                    split=split,
                )
            )
    originals = {video.target for video in videos if not video.fake}
    fakes = {video.target for video in videos if video.fake}
    # `035_036.mp4` in fake/ was made from 035 and 036 in real/.
    links = [(stem, part) for stem in fakes for part in stem.split("_") if part in originals]
    group = connected_groups([video.target for video in videos], links)
    notes = []
    if not links and not originals & fakes:
        notes.append(
            "no fake has the name of an original (name.mp4 or name_other.mp4), so each video is a "
            "group of its own; if some videos show the same original or person, use a manifest with groups"
        )
    return [replace(video, group=group[video.group]) for video in videos], notes


def _read_manifest(path: Path) -> tuple[list[Video], list[str]]:
    videos = []
    lines: dict[str, int] = {}
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
                line = rows.line_num
                video = _manifest_row(path, line, row)
                first = lines.setdefault(os.path.normpath(video.path), line)
                if first != line:
                    raise LayoutError(
                        path, f"line {line}: {video.path} is already in line {first}", "list each video once"
                    )
                videos.append(video)
    except UnicodeDecodeError as error:
        raise LayoutError(path, "is not a CSV file in UTF-8", "save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise LayoutError(path, f"line {rows.reader.line_num}: {error}", "save it as CSV in UTF-8") from error
    except OSError as error:
        raise LayoutError(path, os_reason(error), "make it readable") from error
    return _with_groups(videos, path.parent)


def _with_groups(videos: Sequence[Video], base: Path) -> tuple[list[Video], list[str]]:
    """Join videos of a manifest to the originals that they name, unless both have a group."""
    find = _Originals(videos, base)
    own = [video.group or video.target or _text(video.path, base) for video in videos]
    found = list(videos)
    links: list[tuple[str, str]] = []
    unknown = []
    for i, video in enumerate(videos):
        targets, sources = find(video, video.target), find(video, video.source)
        if video.fake and targets:
            original = videos[targets[0]]
            own[i] = video.group or own[targets[0]]
            found[i] = replace(video, target=video.target if original.target else original.path.stem)
        elif video.fake and video.target and not video.group:
            unknown.append(video.target)
        links += [(own[i], own[j]) for j in (*targets, *sources) if not (video.group and videos[j].group)]
        # A source that is not in the manifest still shows one person.
        if video.source and not sources and not video.group:
            links.append((own[i], video.source))
    notes = []
    if unknown:
        notes.append(
            f"{len(unknown)} fakes have neither a group nor a target that is a real video of the manifest, "
            f"such as target {unknown[0]!r}; if other videos show the same people, give all of them groups"
        )
    group = connected_groups(own, links)
    return [
        replace(video, group=group[name], target=video.target or video.path.stem)
        for video, name in zip(found, own, strict=True)
    ], notes


class _Originals:
    """Real videos of a manifest by their path, file name, and name without suffix or stated target."""

    def __init__(self, videos: Sequence[Video], base: Path) -> None:
        self._videos = videos
        self._base = base
        self._named: list[dict[str, list[int]]] = [{}, {}, {}]
        for i, video in enumerate(videos):
            if not video.fake:
                path = video.path
                names = ({os.path.normpath(path)}, {path.name}, {path.stem, video.target})
                for named, keys in zip(self._named, names, strict=True):
                    for key in keys:
                        named.setdefault(key, []).append(i)

    def __call__(self, video: Video, name: str) -> list[int]:
        """Return the numbers of those that a video names; of several those of its own data set."""
        if not name:
            return []
        keys = (os.path.normpath(self._base / name), name, name)
        found = next((named[key] for named, key in zip(self._named, keys, strict=True) if key in named), [])
        same = [i for i in found if self._videos[i].data_set == video.data_set]
        return same or found


def _manifest_row(manifest: Path, line: int, row: dict[str, str]) -> Video:
    """Return the video of a line; group and target are empty if they are not stated."""
    # The CSV reader fills lines that are too short or too long with None.
    values = {key: value.strip() for key, value in row.items() if key is not None and isinstance(value, str)}
    label, split = values.get("label", "").lower(), values.get("split", "").lower()
    if label not in LABELS:
        raise LayoutError(manifest, f"line {line}: label {label!r}", "write real or fake (or 0 and 1)")
    if split and split not in SPLIT_NAMES:
        raise LayoutError(
            manifest, f"line {line}: split {split!r}", "write train, val or test, or leave it empty"
        )
    if not values.get("path"):
        raise LayoutError(manifest, f"line {line}: no path", "name a video, relative to the manifest")
    path = manifest.parent / values["path"]
    return Video(
        path=path,
        name=path.stem,
        fake=LABELS[label],
        method=values.get("method") or ("fake" if LABELS[label] else "real"),
        target=values.get("target", ""),
        source=values.get("source", ""),
        group=values.get("group", ""),
        split=SPLIT_NAMES[split] if split else None,
        data_set=values.get("set", ""),
    )
