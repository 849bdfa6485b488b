"""Readers of published data sets, in the folder layout of their download scripts.

Each reader returns the videos with groups and official splits, and notes for the reader of results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from streams.input.files import video_files
from train.data.splits import SPLIT_NAMES, Split, connected_groups
from train.data.videos import LayoutError, Video

DFDC_NOTE = "actors of DFDC recur across its groups: figures on held-out groups are optimistic"
CELEB_DF_LIST = "List_of_testing_videos.txt"


def read_ffpp(root: Path, compression: str) -> tuple[list[Video], list[str]]:
    """Read FaceForensics++, and DeepFakeDetection if present.

    Expected layout:

        original_sequences/youtube/c23/videos/033.mp4
        original_sequences/actors/c23/videos/01__walking.mp4                (DeepFakeDetection)
        manipulated_sequences/Deepfakes/c23/videos/033_097.mp4
        manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking__ABC.mp4
        splits/train.json, val.json, test.json          also in the root or in dataset/splits/

    Fake `033_097` shows video 033 with the face of 097; linked videos form a group. Each split JSON is a list
    of pairs `["033", "097"]`. DeepFakeDetection has no official split and its actors are all linked, so it is
    used for testing only.

    Args:
        root: Folder with `original_sequences` and `manipulated_sequences`.
        compression: `raw`, `c23` or `c40`.

    Returns:
        Videos and notes.

    Raises:
        LayoutError: There are no videos of this compression, or the split JSONs are incomplete or unreadable.

    Source:
        Rössler et al., "FaceForensics++: Learning to Detect Manipulated Facial Images", ICCV 2019.
    """
    folders = sorted(
        path
        for kind in ("original_sequences", "manipulated_sequences")
        for path in (root / kind).glob("*/*/videos")
        if path.is_dir()
    )
    chosen = [path for path in folders if path.parent.name == compression]
    if not chosen:
        there = ", ".join(sorted({path.parent.name for path in folders})) or "none"
        raise LayoutError(root, f"no videos of compression {compression}", f"found here: {there}")
    pairs = _ffpp_pairs(root)
    official = {end: split for pair, split in pairs.items() for end in pair}
    videos: list[Video] = []
    links = list(pairs)
    for folder in chosen:
        part = folder.parents[1].name
        fake = folder.parents[2].name == "manipulated_sequences"
        actors = part in ("actors", "DeepFakeDetection")
        for path in video_files(folder):
            # `01_02__walking__ABC` shows actor 01 with the face of 02; `01__walking` is real.
            ends = [f"actor{end}" if actors else end for end in path.stem.split("__")[0].split("_")]
            target, source = ends[0], ends[1] if fake and len(ends) > 1 else ""
            if source:
                links.append((target, source))
            split: Split | None = official.get(target, "unused") if official else None
            videos.append(
                Video(
                    path=path,
                    name=f"{part if fake else 'original'}_{path.stem}",
                    fake=fake,
                    method=part if fake else "original",
                    target=target,
                    source=source,
                    group=target,
                    split="test" if actors else split,
                )
            )
    group = connected_groups([video.target for video in videos], links)
    notes = []
    if not official:
        notes.append("no split JSONs were found: this is not the official split")
    elif unlisted := sum(video.split == "unused" for video in videos):
        notes.append(f"{unlisted} videos are in none of the split JSONs and are excluded")
    return [replace(video, group=group[video.target]) for video in videos], notes


def _ffpp_pairs(root: Path) -> dict[tuple[str, str], Split]:
    splits: tuple[Split, ...] = ("train", "val", "test")
    for folder in (root / "splits", root / "dataset" / "splits", root):
        files = {split: folder / f"{split}.json" for split in splits}
        present = {split: path for split, path in files.items() if path.is_file()}
        if not present:
            continue
        for split in splits:
            if split not in present:
                advice = "copy all three split JSONs from the FaceForensics++ repository"
                raise LayoutError(files[split], "is missing, but the other splits are there", advice)
        pairs: dict[tuple[str, str], Split] = {}
        for split, path in present.items():
            for pair in _json(path):
                if not (isinstance(pair, list) and len(pair) == 2):
                    raise LayoutError(path, "is not a list of pairs", "copy it again")
                pairs[str(pair[0]), str(pair[1])] = split
        return pairs
    return {}


def read_celeb_df(root: Path) -> tuple[list[Video], list[str]]:
    """Read Celeb-DF-v2.

    Expected layout:

        Celeb-real/id0_0000.mp4
        Celeb-synthesis/id0_id1_0000.mp4
        YouTube-real/00003.mp4
        List_of_testing_videos.txt

    Lines of the list look like `1 Celeb-real/id0_0000.mp4`, where 1 is real and 0 is fake. Fake
    `id0_id1_0000` shows video `id0_0000` with the face of person id1; people that are linked by fakes form a
    group. Videos that are not in the list are for training; `find_videos` excludes those that share people
    with the list.

    Args:
        root: Folder with `Celeb-real`, `Celeb-synthesis`, `YouTube-real` and the test list.

    Returns:
        Videos and notes.

    Raises:
        LayoutError: The test list is malformed or its labels contradict the folders.

    Source:
        Li et al., "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics", CVPR 2020.
    """
    path_of_list = root / CELEB_DF_LIST
    listed = _celeb_df_list(path_of_list) if path_of_list.is_file() else {}
    found = set()
    parts = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    videos: list[Video] = []
    links: list[tuple[str, str]] = []
    for part in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
        fake = part == "Celeb-synthesis"
        for path in video_files(parts.get(part.lower(), root / part)):
            ends = path.stem.split("_")
            person = f"youtube{path.stem}" if part == "YouTube-real" else ends[0]
            source = ends[1] if fake and len(ends) > 2 else ""
            if source:
                links.append((person, source))
            # Copies of the data set differ from the list in upper case and in additional folders.
            key = f"{part}/{path.name}".lower()
            found.add(key)
            if listed.get(key, fake) is not fake:
                raise LayoutError(path_of_list, f"{key} has the wrong label", "1 is real and 0 is fake there")
            videos.append(
                Video(
                    path=path,
                    name=f"{part}_{path.stem}",
                    fake=fake,
                    method=part,
                    target=f"{ends[0]}_{ends[-1]}" if source else path.stem,
                    source=source,
                    group=person,
                    split=("test" if key in listed else "train") if listed else None,
                )
            )
    group = connected_groups([video.group for video in videos], links)
    notes = []
    if not listed:
        notes.append(f"no {CELEB_DF_LIST} was found: this is not the official split")
    elif absent := len(listed.keys() - found):
        notes.append(f"{absent} videos of the official test list are missing")
    return [replace(video, group=group[video.group]) for video in videos], notes


def _celeb_df_list(path: Path) -> dict[str, bool]:
    listed = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        label, _, name = line.strip().partition(" ")
        if label not in ("0", "1") or not name.strip():
            raise LayoutError(path, f"line {number} is not `1 folder/name.mp4`", "copy the list again")
        listed[name.strip().lower()] = label == "0"
    return listed


def read_dfdc(root: Path) -> tuple[list[Video], list[str]]:
    """Read parts of the Deepfake Detection Challenge.

    Expected layout:

        dfdc_train_part_0/aaa.mp4
        dfdc_train_part_0/metadata.json

    Each part's metadata looks like `{"aaa.mp4": {"label": "FAKE", "split": "train", "original": "bbb.mp4"}}`.
    A group is an original video and its fakes. Actors occur in several originals, but the data set does not
    state which, so groups in different splits may show the same person.

    Args:
        root: A part, or a folder of parts.

    Returns:
        Videos and notes.

    Raises:
        LayoutError: A metadata.json is unreadable or lacks a label.

    Source:
        Dolhansky et al., "The DeepFake Detection Challenge (DFDC) Dataset", 2020.
    """
    videos = []
    for metadata in sorted(root.rglob("metadata.json")):
        entries = _json(metadata)
        if not isinstance(entries, Mapping):
            raise LayoutError(metadata, "is not an object of file names", "extract the part again")
        for name, entry in sorted(entries.items()):
            label = str(entry.get("label", "")).upper() if isinstance(entry, Mapping) else ""
            if label not in ("REAL", "FAKE"):
                raise LayoutError(metadata, f"{name} has no label REAL or FAKE", "extract the part again")
            stem = Path(name).stem
            original = Path(str(entry.get("original") or name)).stem if label == "FAKE" else stem
            videos.append(
                Video(
                    path=metadata.parent / name,
                    name=f"DFDC_{stem}",
                    fake=label == "FAKE",
                    method="DFDC" if label == "FAKE" else "original",
                    target=original,
                    group=original,
                    split=SPLIT_NAMES.get(str(entry.get("split", "")).lower()),
                )
            )
    return videos, [DFDC_NOTE]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(path, f"cannot be read as JSON ({error})", "copy it again") from error
