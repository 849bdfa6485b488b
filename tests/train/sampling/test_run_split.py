"""The division of the clip sets of a run: no group is in training and held out, in one set or in two."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

import unmask
from train.data.clip_set import read_clip_set
from train.data.splits import GroupUnknown, SplitLeak
from train.sampling.run_split import check_run, entries_of


def index(folder: Path, *groups: tuple[str, str]) -> Path:
    """Write the index of a clip set: a group and a split of each clip; all splits may be empty."""
    folder.mkdir()
    lines = [f"000.tar,c{i}_0,{i % 2},swap,{group},8,{split}" for i, (group, split) in enumerate(groups)]
    (folder / "clips.csv").write_text("\n".join(["shard,clip,fake,method,group,frames,split", *lines]) + "\n")
    return folder


def groups_of(folder: Path, val_groups: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the groups of the training and of the validation clips."""
    clip_set = read_clip_set(folder)
    train, val = (entries_of(clip_set, split, val_groups) for split in ("train", "val"))
    return [entry.group for entry in train], [entry.group for entry in val]


def test_stated_splits_come_before_groups(tmp_path: Path) -> None:
    """Groups are held out of a set without splits only; others take them at their word."""
    stated = index(tmp_path / "stated", ("a", "train"), ("b", "val"), ("c", "test"), ("d", ""))
    assert groups_of(stated, ("a",)) == (["a"], ["b"])
    without = index(tmp_path / "without", ("a", ""), ("b", ""))
    assert groups_of(without, ("b", "c")) == (["a"], ["b"])


def test_a_group_is_in_one_split_of_all_sets(tmp_path: Path) -> None:
    """A leak within a set, between two sets, or against the named groups is refused."""
    one = index(tmp_path / "one", ("a", "train"), ("b", "val"), ("d", ""), ("a", ""))
    other = index(tmp_path / "other", ("b", "train"), ("c", "val"))
    within = index(tmp_path / "within", ("e", "train"), ("e", "val"))
    without = index(tmp_path / "without", ("a", ""), ("b", ""), ("f", ""))
    check_run([one], ("b",))
    check_run([one, without], ("b",))
    for data, val_groups, leak in (
        ([one, other], (), {"b": ("train", "val")}),
        ([within], (), {"e": ("train", "val")}),
        ([one, without], (), {"b": ("train", "val")}),
        ([one, without], ("a", "b"), {"a": ("train", "val")}),
        ([one], ("a",), {"a": ("train", "val")}),
    ):
        with pytest.raises(SplitLeak) as caught:
            check_run(data, val_groups)
        assert caught.value.groups == leak
    with pytest.raises(GroupUnknown, match="'typo'"):
        check_run([one, without], ("b", "typo"))


@pytest.mark.parametrize("command", ["fit", "teacher", "temporal"])
def test_commands_check_the_division_first(
    tmp_path: Path, command: str, dark_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No clip is read, nor anything written, before the division is known to be sound."""
    sets = [index(tmp_path / "one", ("a", "train"), ("b", "val")), index(tmp_path / "two", ("b", "train"))]
    model = [dark_bundle] if command == "temporal" else []
    out = [] if command == "temporal" else ["--out", tmp_path / "out"]
    for extra, message in (
        ([], "group 'b' is in train and in val"),
        (["--val-groups", "b, typo"], "there is no group 'typo' in the data"),
    ):
        arguments = ["train", command, *model, *sets, *out, *extra]
        assert unmask.run([str(argument) for argument in arguments]) == 2
        assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
