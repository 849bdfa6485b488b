"""Groups that a model was trained on are recognised by their names, also after further training."""

from __future__ import annotations

import json
from pathlib import Path

from train.data.clip_set import ClipSet, Entry
from train.models.trained_groups import record, trained_on


def clip_set(name: str, groups: str, split: str = "") -> ClipSet:
    """Return the index of a clip set with one clip of each group."""
    entries = [
        Entry(
            shard="000.tar",
            clip=f"{group}_0",
            video=group,
            fake=False,
            method="x",
            group=group,
            split=split,
            frames=8,
            height=90,
            sample_hz=8,
        )
        for group in groups
    ]
    return ClipSet(folder=Path(name), entries=tuple(entries), margin=1.3)


def write(folder: Path, name: str, training: dict[str, object]) -> Path:
    """Write the file of a model that states how it was trained."""
    folder.mkdir()
    (folder / name).write_text(json.dumps({"training": training}))
    return folder


def test_groups_are_known_whatever_the_set_is_called() -> None:
    """The record has no names; of the clips, the groups that were trained on are found."""
    training = record(["a", "b", "Jane Doe"])
    assert "Jane" not in json.dumps(training)
    seen, unseen = clip_set("renamed", "cba"), clip_set("renamed", "xyz")
    assert trained_on(training, seen, seen.entries) == ["a", "b"]
    assert trained_on(training, seen, seen.entries[:1]) == []
    assert trained_on(training, unseen, unseen.entries) == []
    assert trained_on({}, seen, seen.entries) == []


def test_the_record_is_carried_on(tmp_path: Path) -> None:
    """It includes the groups of the initial weights and of the teacher, and of theirs."""
    first = write(tmp_path / "first", "manifest.json", {**record(["a"]), "temporal": record(["t"])})
    teacher = write(tmp_path / "teacher", "teacher.json", record(["b"]))
    second = write(tmp_path / "second", "config.json", record(["c"], [first, teacher]))
    (tmp_path / "weights.pth").touch()
    training = record(["d"], [second, None, tmp_path / "weights.pth"])
    seen = clip_set("any", "abcdet")
    assert trained_on(training, seen, seen.entries) == ["a", "b", "c", "d"]


def test_the_temporal_classifier_counts_unless_it_is_replaced() -> None:
    """Its groups are separate from those of the network."""
    training = {**record(["a"]), "temporal": record(["b"])}
    seen = clip_set("any", "abc")
    assert trained_on(training, seen, seen.entries) == ["a", "b"]
    assert trained_on(training, seen, seen.entries, temporal=False) == ["a"]


def test_earlier_models_know_the_names_of_their_sets(tmp_path: Path) -> None:
    """Of these all but the held-out groups were trained on; models that begin with them know that too."""
    facts: dict[str, object] = {"sets": ["old"], "fit": {"val_groups": ["b"]}}
    earlier = write(tmp_path / "earlier", "manifest.json", facts)
    later = write(tmp_path / "later", "config.json", record(["c"], [earlier]))
    for training in (facts, record(["d"], [earlier, later])):
        old, other, val = clip_set("old", "ab"), clip_set("new", "ab"), clip_set("old", "a", "val")
        assert trained_on(training, old, old.entries) == ["a"]
        assert trained_on(training, old, old.entries[1:]) == []
        assert trained_on(training, other, other.entries) == []
        assert trained_on(training, val, val.entries) == []
