"""Division of the clips of a run into training and held-out clips, the same for all of its steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from train.data.clip_set import ClipSet, Entry, read_clip_set
from train.data.splits import SPLIT_NAMES, Split, check_known, check_no_leak


def entries_of(clip_set: ClipSet, split: Split, val_groups: Collection[str]) -> list[Entry]:
    """Return the clips of a split: the stated one, or `train` and `val` by group if the set states none.

    Args:
        clip_set: The clip set.
        split: The split.
        val_groups: Groups held out of clip sets that state no split.
    """
    splits = _splits(clip_set, val_groups)
    return [entry for entry, own in zip(clip_set.entries, splits, strict=True) if own == split]


def set_names(data: Sequence[Path]) -> list[str]:
    """Return the names of the folders of clip sets, of those that links lead to."""
    return [folder.resolve().name for folder in data]


def training_groups(data: Sequence[Path], val_groups: Collection[str]) -> set[str]:
    """Return the groups with training clips in the clip sets of a run."""
    sets = map(read_clip_set, data)
    return {entry.group for clip_set in sets for entry in entries_of(clip_set, "train", val_groups)}


def check_run(data: Sequence[Path], val_groups: Collection[str]) -> None:
    """Check the division of all clip sets of a run. Groups of one name in two sets are one group.

    Args:
        data: The clip sets.
        val_groups: Groups held out of clip sets that state no split.

    Raises:
        ClipSetError: A clip set cannot be read.
        GroupUnknown: No clip set has one of `val_groups`.
        SplitLeak: A group is in two splits, of one clip set or of two, or a clip set states another split
            than `val` for one of `val_groups`.
    """
    groups, splits = list(val_groups), ["val"] * len(val_groups)
    for folder in data:
        clip_set = read_clip_set(folder)
        groups += [entry.group for entry in clip_set.entries]
        splits += _splits(clip_set, val_groups)
    check_known(val_groups, groups[len(val_groups) :])
    check_no_leak(groups, splits)


def _splits(clip_set: ClipSet, val_groups: Collection[str]) -> list[Split]:
    """Return the split of each clip."""
    if clip_set.splits():
        return [SPLIT_NAMES.get(entry.split, "unused") for entry in clip_set.entries]
    return ["val" if entry.group in val_groups else "train" for entry in clip_set.entries]
