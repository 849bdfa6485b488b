"""Selection of the clips to score, and checks whether they suit a model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from streams.input.continuity import MAX_STEP
from streams.input.sampler import MIN_STEP
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSet, ClipSetError, Entry
from train.data.splits import Split
from train.scoring.scorer import Scorer


def choose_split(
    split: Literal[Split, "auto", "all"], available: Collection[str], groups: Collection[str] | None = None
) -> Literal[Split, "all"]:
    """Return the split to evaluate on.

    Args:
        split: The requested split; `auto` takes `test`, else `val`, else everything.
        available: The splits that the data set has.
        groups: The requested groups; with `auto` they are taken from every split.
    """
    if split != "auto":
        return split
    if groups is None and "test" in available:
        return "test"
    return "val" if groups is None and "val" in available else "all"


def choose_entries(
    clip_set: ClipSet, split: Literal[Split, "all"], groups: Collection[str] | None = None
) -> list[Entry]:
    """Return the clips of a split, in the order of their shards.

    Args:
        clip_set: The clip set.
        split: The split.
        groups: The groups to take; None for all.

    Raises:
        ClipSetError: The clip set has no such clip.
    """
    kept = [
        entry
        for entry in clip_set.entries
        if split in ("all", entry.split) and (groups is None or entry.group in groups)
    ]
    if not kept:
        given = "" if groups is None else " and the given groups"
        raise ClipSetError(clip_set.folder, f"contains no clip of the split {split}{given}")
    return sorted(kept, key=lambda entry: (entry.shard, entry.clip))


def sample_rate_differs(entry: Entry, scorer: Scorer) -> bool:
    """Return whether a clip is known to have another sample rate than the model."""
    if not entry.sample_hz:
        return False
    return not MIN_STEP <= scorer.sample_hz / entry.sample_hz <= MAX_STEP


def evaluation_spec(scorer: Scorer) -> ClipSpec:
    """Return the clip spec for evaluating a model: whole videos, in adjacent windows."""
    return ClipSpec(
        size=max(224, scorer.input_size),
        margin=scorer.crop_margin,
        sample_hz=scorer.sample_hz,
        frames=scorer.window,
        min_frames=scorer.min_frames,
        per_video=None,
        max_seconds=None,
    )
