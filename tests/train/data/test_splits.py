"""No group on both sides, whatever the data set looks like."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from train.data.splits import SplitLeak, check, components, divide, untangle


def test_components_follow_links_of_links() -> None:
    """A swap of a and b and one of b and c keep all three together; a name says who is in."""
    found = components(["a", "b", "x"], [("b", "a"), ("b", "c"), ("p", "q")])
    assert found["a"] == found["b"] == found["c"] == "a+2"
    assert found["p"] == found["q"] == "p-q"
    assert found["x"] == "x"


def test_divide_gives_each_split_its_share_of_both_classes() -> None:
    """A hundred pairs come out as 80, 10 and 10, with reals and fakes in each."""
    groups = [f"g{i % 100}" for i in range(300)]
    fake = [i >= 100 for i in range(300)]
    found = divide(groups, fake)
    assert Counter(found.values()) == {"train": 80, "val": 10, "test": 10}


def test_divide_balances_classes_that_share_no_group() -> None:
    """Where every video is its own group, validation still gets both classes."""
    groups = [f"r{i}" for i in range(40)] + [f"f{i}" for i in range(400)]
    fake = [False] * 40 + [True] * 400
    found = divide(groups, fake)
    for split in ("val", "test"):
        assert Counter(name[0] for name, side in found.items() if side == split) == {"r": 4, "f": 40}


def test_divide_does_not_depend_on_the_order_of_files() -> None:
    """Another order gives the same sides; another seed gives others."""
    groups = [f"g{i}" for i in range(50)]
    fake = [i % 2 == 0 for i in range(50)]
    order = np.random.default_rng(0).permutation(50)
    again = divide([groups[i] for i in order], [fake[i] for i in order])
    assert divide(groups, fake) == again
    assert divide(groups, fake, seed=1) != again


def test_divide_never_splits_a_giant_group() -> None:
    """A group with most of the videos goes to training as a whole, and the others fill up the rest."""
    groups = ["giant"] * 60 + [f"g{i}" for i in range(40)]
    found = divide(groups, [i % 2 == 0 for i in range(100)])
    assert found["giant"] == "train"
    assert Counter(found.values())["val"] == 10
    assert divide([], []) == {}


def test_check_names_the_group_that_leaks() -> None:
    """A group on two sides is an error that names it; a part that is set aside is none."""
    check(["a", "a", "b"], ["train", "unused", "test"])
    with pytest.raises(SplitLeak, match="group 'a' is in test and in train") as caught:
        check(["a", "b", "a"], ["train", "test", "test"])
    assert caught.value.groups == {"a": ("test", "train")}


def test_untangle_keeps_the_test_set_whole() -> None:
    """What shares a group with the test set leaves training; what shares one with validation too."""
    groups = ["a", "a", "b", "b", "c", "c"]
    found = untangle(groups, ["train", "test", "train", "val", "train", "train"])
    assert found == ["unused", "test", "unused", "val", "train", "train"]
    check(groups, found)
