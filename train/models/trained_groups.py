"""Record of the groups that a model was trained on, by which an evaluation recognises them.

The training facts of a model, in its `config.json`, `manifest.json` or `teacher.json`, contain:

    trained_groups   digests of the names of the groups, those of the initial weights and the teacher included
    temporal         the same of its temporal classifier, if that was fitted to other clips afterwards
    earlier_sets     clip sets of initial weights or a teacher that state no groups

Models of earlier versions state only the names of their clip sets (`sets`). Of these they were trained on the
training split or, without splits, on everything but `val_groups`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.model.manifest import MANIFEST_FILE
from train.data.clip_set import ClipSet, Entry
from train.sampling.run_split import entries_of

FILES = ("config.json", MANIFEST_FILE, "teacher.json")
"""Files of a checkpoint, a bundle and a teacher that state how it was trained."""
DIGITS = 12
"""Hexadecimal digits of the digest of a group. Its name is not kept, as it may be that of a person."""


def record(groups: Iterable[str], origins: Sequence[Path | None] = ()) -> dict[str, Any]:
    """Return the record of a training.

    Args:
        groups: The groups that are trained on.
        origins: Initial weights and teacher, whose records are carried on: directories of checkpoints,
            bundles or teachers. None, and files of weights, which state nothing, are left out.
    """
    digests, earlier = {_digest(group) for group in groups}, []
    for training in map(_training_of, filter(None, origins)):
        digests |= _digests(training)
        earlier += [known for known in _earlier_sets(training) if known not in earlier]
    return {"trained_groups": " ".join(sorted(digests))} | ({"earlier_sets": earlier} if earlier else {})


def trained_on(
    training: Mapping[str, Any], clip_set: ClipSet, entries: Iterable[Entry], *, temporal: bool = True
) -> list[str]:
    """Return the groups of clips that a model was trained on, sorted.

    Args:
        training: Training facts of the model.
        clip_set: The clip set.
        entries: The clips.
        temporal: Whether to include the groups of its temporal classifier.
    """
    digests = _digests(training)
    if temporal:
        digests |= _digests(training.get("temporal", {}))
    groups = {entry.group for entry in entries}
    found = {group for group in groups if _digest(group) in digests}
    for known in _earlier_sets(training):
        if known["name"] == clip_set.folder.resolve().name:
            own = entries_of(clip_set, "train", known["val_groups"])
            found |= groups & {entry.group for entry in own}
    return sorted(found)


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()[:DIGITS]


def _digests(training: Mapping[str, Any]) -> set[str]:
    return set(training.get("trained_groups", "").split())


def _earlier_sets(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the clip sets that a model knows by name only, each with the groups that were held out of it."""
    earlier: list[dict[str, Any]] = list(training.get("earlier_sets", ()))
    if "trained_groups" not in training:
        val_groups = list(training.get("fit", {}).get("val_groups", ()))
        earlier += [{"name": name, "val_groups": val_groups} for name in training.get("sets", ())]
    return earlier


def _training_of(origin: Path) -> Mapping[str, Any]:
    """Return the training facts of a model, which has been read; empty for a file of weights."""
    path = next((origin / name for name in FILES if (origin / name).is_file()), None)
    if path is None:
        return {}
    training: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("training", {})
    return training
