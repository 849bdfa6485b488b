"""Tests of groups and of their division into splits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from train.data.splits import (
    GroupUnknown,
    SplitLeak,
    check_known,
    check_no_leak,
    connected_groups,
    exclude_leaks,
    split_groups,
)


def test_linked_names_form_one_group() -> None:
    """Links are followed transitively, and the group name lists its members."""
    found = connected_groups(["a", "b", "x"], [("b", "a"), ("b", "c"), ("p", "q")])
    assert found["a"] == found["b"] == found["c"] == "a+2"
    assert found["p"] == found["q"] == "p-q"
    assert found["x"] == "x"


def test_each_split_gets_its_share_of_both_classes() -> None:
    """A hundred groups are divided 80, 10 and 10, with real and fake videos in each."""
    groups = [f"g{i % 100}" for i in range(300)]
    fake = [i >= 100 for i in range(300)]
    found = split_groups(groups, fake)
    assert Counter(found.values()) == {"train": 80, "val": 10, "test": 10}


def test_classes_without_common_groups_are_balanced() -> None:
    """If every video is a group of its own, validation still gets both classes."""
    groups = [f"r{i}" for i in range(40)] + [f"f{i}" for i in range(400)]
    fake = [False] * 40 + [True] * 400
    found = split_groups(groups, fake)
    for split in ("val", "test"):
        assert Counter(name[0] for name, chosen in found.items() if chosen == split) == {"r": 4, "f": 40}


def test_the_division_does_not_depend_on_the_order_of_files() -> None:
    """Another order gives the same splits; another seed gives others."""
    groups = [f"g{i}" for i in range(50)]
    fake = [i % 2 == 0 for i in range(50)]
    order = np.random.default_rng(0).permutation(50)
    again = split_groups([groups[i] for i in order], [fake[i] for i in order])
    assert split_groups(groups, fake) == again
    assert split_groups(groups, fake, seed=1) != again


def test_a_large_group_stays_together() -> None:
    """A group with most of the videos goes to training, and the others fill the other splits."""
    groups = ["giant"] * 60 + [f"g{i}" for i in range(40)]
    found = split_groups(groups, [i % 2 == 0 for i in range(100)])
    assert found["giant"] == "train"
    assert Counter(found.values())["val"] == 10
    assert split_groups([], []) == {}


def test_a_leaking_group_is_named() -> None:
    """A group in two splits is an error that names it; unused videos are allowed."""
    check_no_leak(["a", "a", "b"], ["train", "unused", "test"])
    with pytest.raises(SplitLeak, match="group 'a' is in test and in train") as caught:
        check_no_leak(["a", "b", "a"], ["train", "test", "test"])
    assert caught.value.groups == {"a": ("test", "train")}


def test_excluding_leaks_keeps_the_test_split_complete() -> None:
    """Training videos that share a group with the test or validation split are excluded."""
    groups = ["a", "a", "b", "b", "c", "c"]
    found = exclude_leaks(groups, ["train", "test", "train", "val", "train", "train"])
    assert found == ["unused", "test", "unused", "val", "train", "train"]
    check_no_leak(groups, found)


def test_a_named_group_must_exist() -> None:
    """Every name that is no group is listed."""
    check_known((), ())
    check_known(["a"], ["b", "a", "a"])
    with pytest.raises(GroupUnknown, match="there is no group 'c' or 'd' in the data; check the spelling"):
        check_known(["d", "a", "c"], ["b", "a"])
