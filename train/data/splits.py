"""Groups of videos that belong together, and their division into train, val and test without leaks.

A fake shows the scene of its original and the face of its source. A detector that was trained on one of them
recognises the others, so they must be in the same split; otherwise results on the test split are
optimistic.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from train.errors import TrainError

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
SPLIT_SHARES: Mapping[Split, float] = {"train": 0.8, "val": 0.1, "test": 0.1}


class SplitLeak(TrainError):
    """A group with videos in more than one split.

    Args:
        groups: Group -> its splits, for each such group.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__(groups)
        self.groups = {name: tuple(splits) for name, splits in groups.items()}

    def __str__(self) -> str:
        name, splits = next(iter(self.groups.items()))
        others = f" (and {len(self.groups) - 1} more groups)" if len(self.groups) > 1 else ""
        return (
            f"group {name!r} is in {' and in '.join(splits)}{others}; put all videos of a group in one split"
        )


class GroupUnknown(TrainError):
    """A group that was named but has no clip or video.

    Args:
        names: The groups.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))
        super().__init__(self.names)

    def __str__(self) -> str:
        listed = " or ".join(map(repr, self.names))
        return f"there is no group {listed} in the data; check the spelling"


def connected_groups(members: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the group of each member: the connected component of the graph of links.

    Args:
        members: Names of people or videos; repetitions are allowed.
        links: Pairs of names that must stay together; both become members.

    Returns:
        Member -> group name: the member itself, `a-b` for a pair, `a+7` for a and seven more.
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


def split_groups(
    groups: Sequence[str],
    fake: Sequence[bool],
    *,
    seed: int = 0,
    shares: Mapping[Split, float] = SPLIT_SHARES,
) -> dict[str, Split]:
    """Divide groups into splits, so that each split gets its share of both classes.

    Large groups are placed first, each into the split that lacks most of its classes. Groups of equal size
    are ordered by a hash of their names, so the result does not depend on the order of the files. With few
    groups a split may stay empty.

    Args:
        groups: Group of each video, `(N,)`.
        fake: Whether each video is fake, `(N,)`.
        seed: Seed of the division.
        shares: Split -> its share of the videos; of equally suitable splits the first is taken.

    Returns:
        Group -> split.
    """
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for group, is_fake in zip(groups, fake, strict=True):
        counts[group][bool(is_fake)] += 1
    total = Counter(bool(is_fake) for is_fake in fake)
    lacking = {split: dict.fromkeys(total, share) for split, share in shares.items()}

    def order(group: str) -> tuple[int, str]:
        return -counts[group].total(), hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    found: dict[str, Split] = {}
    for group in sorted(counts, key=order):
        content = {label: number / total[label] for label, number in counts[group].items()}
        best = max(shares, key=lambda split: sum(content[label] * lacking[split][label] for label in content))
        for label, share in content.items():
            lacking[best][label] -= share
        found[group] = best
    return found


def check_known(named: Iterable[str], groups: Iterable[str]) -> None:
    """Check that groups exist, as a misspelt one would be left out without a word.

    Args:
        named: The groups that were named.
        groups: Group of each video or clip.

    Raises:
        GroupUnknown: A group does not exist.
    """
    unknown = set(named) - set(groups)
    if unknown:
        raise GroupUnknown(unknown)


def check_no_leak(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Check that no group is in two splits.

    Args:
        groups: Group of each video or clip, `(N,)`.
        splits: Split of each video or clip, `(N,)`; `unused` is allowed beside any other.

    Raises:
        SplitLeak: A group is in two splits.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if split != "unused":
            found[group].add(split)
    leaking = {group: sorted(names) for group, names in sorted(found.items()) if len(names) > 1}
    if leaking:
        raise SplitLeak(leaking)


def exclude_leaks(groups: Sequence[str], splits: Sequence[Split]) -> list[Split]:
    """Exclude videos whose group is in two splits of an official division.

    The test split stays complete, then the validation split; videos of their groups are excluded from the
    other splits.

    Args:
        groups: Group of each video, `(N,)`.
        splits: Official split of each video, `(N,)`.

    Returns:
        Split of each video, `(N,)`; `unused` for the excluded ones.
    """
    kept: dict[str, Split] = {}
    order: tuple[Split, ...] = ("test", "val", "train")
    for name in order:
        for group, split in zip(groups, splits, strict=True):
            if split == name:
                kept.setdefault(group, name)
    return [
        split if kept.get(group) == split else "unused" for group, split in zip(groups, splits, strict=True)
    ]
