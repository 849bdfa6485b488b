"""Labelled videos of a benchmark: manifests, splits, and pairs of real and fake of the same source."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.data.layouts import find_videos
from train.data.splits import Split
from train.data.videos import LayoutError, Video
from train.scoring.selection import choose_split

_SEPARATORS = re.compile(r"[\W_]+")


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """Video of a benchmark.

    Args:
        path: The file.
        fake: Whether it is fake.
        data_set: Name of its data set.
        group: Person, or people, that the video shows; intervals are drawn over groups.
        method: Method that made the fake; of a real video, the part of the data set that it comes from.
        target: Original video that a fake was made from; of a real video, the video itself.
    """

    path: Path
    fake: bool
    data_set: str
    group: str
    method: str
    target: str


def read_manifests(
    manifests: Iterable[Path], split: Literal[Split, "auto", "all"] = "auto"
) -> list[LabelledVideo]:
    """Read the videos of some manifests.

    Args:
        manifests: CSV files as for `unmask train prepare`. The optional column `set` has the name of the data
            set, which otherwise is the name of the CSV file.
        split: Split to take; `auto` takes `test`, else `val`, else everything, for each manifest by itself.

    Returns:
        The videos, each file once.

    Raises:
        LayoutError: A manifest cannot be read, has no video of that split, names a file that is missing, or
            contradicts another one on the label of a file.
    """
    found: dict[Path, LabelledVideo] = {}
    for manifest in manifests:
        video_set = find_videos(manifest, layout="manifest")
        stated = {str(video.split) for video in video_set.videos} if video_set.has_official_split else set()
        chosen = choose_split(split, stated)
        videos = [video for video in video_set.videos if chosen in ("all", video.split)]
        if not videos:
            raise LayoutError(manifest, f"has no video of the split {chosen}", "choose another --split")
        missing = [video.path for video in videos if not video.path.exists()]
        if missing:
            raise LayoutError(
                manifest, f"{len(missing)} of its videos are missing, such as {missing[0]}", "check the paths"
            )
        for video in videos:
            labelled = _labelled(video, manifest.stem)
            if found.setdefault(video.path.resolve(), labelled).fake != video.fake:
                raise LayoutError(
                    manifest, f"{video.path} is real in one line and fake in another", "correct its label"
                )
    return list(found.values())


def _labelled(video: Video, manifest_name: str) -> LabelledVideo:
    return LabelledVideo(
        path=video.path,
        fake=video.fake,
        data_set=video.data_set or manifest_name,
        group=video.group,
        method=video.method,
        target=video.target,
    )


def find_pairs(videos: Sequence[LabelledVideo]) -> list[tuple[int, int]]:
    """Return the pairs of a fake and the real video that it was made from, by their position.

    A fake belongs to the real videos of its group and data set that have its `target`; else to those with the
    same name up to the word `real` or `fake`; else to the one whose last part of the name is the first such
    part in the name of the fake (`Deepfakes_033_097` and `youtube_033`); else to all of its group.

    Args:
        videos: The videos.
    """
    reals: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, video in enumerate(videos):
        if not video.fake:
            reals[video.data_set, video.group].append(index)
    pairs = []
    for index, video in enumerate(videos):
        if video.fake:
            candidates = reals[video.data_set, video.group]
            pairs += [(index, real) for real in _sources(video, candidates, videos)]
    return pairs


def _sources(fake: LabelledVideo, candidates: list[int], videos: Sequence[LabelledVideo]) -> list[int]:
    if same_target := [i for i in candidates if videos[i].target == fake.target]:
        return same_target
    prefix = _prefix(fake.path)
    if prefix and (same_name := [i for i in candidates if _prefix(videos[i].path) == prefix]):
        return same_name
    last_parts = {_parts(videos[i].path)[-1]: i for i in candidates}
    if len(last_parts) == len(candidates):
        for part in _parts(fake.path):
            if part in last_parts:
                return [last_parts[part]]
    return candidates


def _parts(path: Path) -> list[str]:
    return [part for part in _SEPARATORS.split(path.stem.lower()) if part] or [""]


def _prefix(path: Path) -> tuple[str, ...]:
    """Return the parts of a name before the word `real` or `fake`; none without such a word."""
    parts = _parts(path)
    for number, part in enumerate(parts):
        if part in ("real", "fake"):
            return tuple(parts[:number])
    return ()
