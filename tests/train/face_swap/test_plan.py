"""Tests of the choice of videos, sources and decoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from train.data.splits import Split
from train.data.videos import Video
from train.face_swap.config import DESIGNS, SwapConfig
from train.face_swap.plan import choose_decoder, choose_sources, plan_generators


def video(name: str, group: str, split: Split) -> Video:
    """Return a real video."""
    return Video(
        path=Path(f"{name}.mp4"), name=name, fake=False, method="real", target=name, group=group, split=split
    )


def test_generators_are_kept_apart_by_split() -> None:
    """No video and no group is in generators of two splits, and none in two generators."""
    videos = [video(f"t{i}", f"person{i // 2}", "train") for i in range(30)]
    videos += [video(f"v{i}", f"other{i}", "val") for i in range(9)]
    plans = plan_generators(videos, SwapConfig(designs=DESIGNS[:3], videos=5))
    assert [plan.split for plan in plans] == ["train"] * 3 + ["val"] * 2
    groups = {
        split: {v.group for plan in plans if plan.split == split for v in plan.videos}
        for split in ("train", "val")
    }
    assert not groups["train"] & groups["val"]
    names = [v.name for plan in plans for v in plan.videos]
    assert len(names) == len(set(names))
    assert max(len(plan.videos) for plan in plans) == 5
    assert len({plan.seed for plan in plans}) == len(plans)
    assert plans == plan_generators(list(reversed(videos)), SwapConfig(designs=DESIGNS[:3], videos=5))
    assert plans != plan_generators(videos, SwapConfig(designs=DESIGNS[:3], videos=5, seed=1))


def test_one_person_makes_no_generator() -> None:
    """A swap needs two people."""
    assert plan_generators([video(f"t{i}", "one", "train") for i in range(5)], SwapConfig()) == []
    assert plan_generators([], SwapConfig()) == []


def test_sources_are_large_and_of_different_people() -> None:
    """The largest faces are chosen, one of each group."""
    assert choose_sources(["a", "a", "b", "c"], [100, 120, 90, 40], 2) == [1, 2]
    assert choose_sources(["a", "a"], [100, 120], 3) == [1]


def test_nobody_gets_a_face_of_their_own_group() -> None:
    """The source is of another group; without one, or outside the share, the face is reconstructed."""
    groups, sources = ["a", "b", "c", "a"], [0, 1]
    random = np.random.default_rng(0)
    chosen = [
        [choose_decoder(target, groups, sources, 0.7, random) for _ in range(200)] for target in range(4)
    ]
    assert set(chosen[0]) == set(chosen[3]) == {1, 2}
    assert set(chosen[1]) == {0, 2}
    assert set(chosen[2]) == {0, 1, 2}
    assert 0.2 < np.mean(np.array(chosen) == 2) < 0.4
    assert choose_decoder(0, ["a", "b"], [0], 1.0, random) == 1
