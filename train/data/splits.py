"""Keeps what belongs together on one side: groups of videos, and their division into train, val and test.

Pure. A forgery shares its picture with its original and its face with its source; a detector that has seen
one of them in training recognises the others, and a figure measured on them is worth nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Split = Literal["train", "val", "test", "unused"]

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
SHARES: Mapping[Split, float] = {"train": 0.8, "val": 0.1, "test": 0.1}


class SplitLeak(ValueError):
    """Says that a group lies on two sides of a split.

    Args:
        groups: Which do, with their sides.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__(groups)
        self.groups = {name: tuple(sides) for name, sides in groups.items()}

    def __str__(self) -> str:
        name, sides = next(iter(self.groups.items()))
        others = f" (and {len(self.groups) - 1} more groups)" if len(self.groups) > 1 else ""
        return f"group {name!r} is in {' and in '.join(sides)}{others}; put all videos of a group on one side"


def components(members: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name the connected component of each member: everything that links reach from it.

    Args:
        members: Names (identities, videos), repeated or not.
        links: Pairs of names that must stay together; their ends are members too.

    Returns:
        Member -> component name: the member itself, `a-b` for a pair, `a+7` for a and seven more.
    """
    pairs = list(links)
    names = sorted({*members, *(end for pair in pairs for end in pair)})
    index = {name: i for i, name in enumerate(names)}
    rows, columns = [index[a] for a, _ in pairs], [index[b] for _, b in pairs]
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (rows, columns)), shape=(len(names), len(names)))
    _, label = connected_components(graph, directed=False)
    together: dict[int, list[str]] = defaultdict(list)
    for name in names:
        together[int(label[index[name]])].append(name)
    title = {
        i: "-".join(found) if len(found) < 3 else f"{found[0]}+{len(found) - 1}"
        for i, found in together.items()
    }
    return {name: title[int(label[index[name]])] for name in names}


def divide(
    groups: Sequence[str], fake: Sequence[bool], *, seed: int = 0, shares: Mapping[Split, float] = SHARES
) -> dict[str, Split]:
    """Divide groups into splits, so that each split has its share of both classes.

    Large groups are placed first, each where most is lacking of what it holds. Equal groups come in the order
    of a hash of their names, so the result does not depend on the order of the files. Few groups may leave a
    split empty.

    Args:
        groups: (N,) the group of each video.
        fake: (N,) truth of each video.
        seed: Another seed, another division.
        shares: Split -> its share of the videos; ties go to the first.

    Returns:
        Group -> split.
    """
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for group, forged in zip(groups, fake, strict=True):
        counts[group][bool(forged)] += 1
    total = Counter(bool(forged) for forged in fake)
    lacking = {split: dict.fromkeys(total, share) for split, share in shares.items()}

    def drawn(group: str) -> tuple[int, str]:
        return -counts[group].total(), hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    found: dict[str, Split] = {}
    for group in sorted(counts, key=drawn):
        held = {forged: number / total[forged] for forged, number in counts[group].items()}
        best = max(shares, key=lambda split: sum(held[f] * lacking[split][f] for f in held))
        for forged, share in held.items():
            lacking[best][forged] -= share
        found[group] = best
    return found


def check(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Check that no group lies on two sides.

    Args:
        groups: (N,) the group of each video or clip.
        splits: (N,) its split; `unused` is no side.

    Raises:
        SplitLeak: A group does.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if split != "unused":
            sides[group].add(split)
    torn = {group: sorted(found) for group, found in sorted(sides.items()) if len(found) > 1}
    if torn:
        raise SplitLeak(torn)


def untangle(groups: Sequence[str], splits: Sequence[Split]) -> list[Split]:
    """Set aside what would leak where an official split tears groups apart.

    The test set stays whole, then the validation set; what they share a group with is taken out of the
    others.

    Args:
        groups: (N,) the group of each video.
        splits: (N,) its official split.

    Returns:
        (N,) the splits with `unused` for what was taken out.
    """
    kept: dict[str, Split] = {}
    order: tuple[Split, ...] = ("test", "val", "train")
    for side in order:
        for group, split in zip(groups, splits, strict=True):
            if split == side:
                kept.setdefault(group, side)
    return [
        split if kept.get(group) == split else "unused" for group, split in zip(groups, splits, strict=True)
    ]
