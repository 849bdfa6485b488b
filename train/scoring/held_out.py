"""Scoring of clips that were held out of the training, for calibration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from train.data.clip_set import ClipSet, Entry, read_clip_set
from train.data.splits import Split
from train.sampling.run_split import entries_of
from train.scoring.clip_scores import ClipScores, score_clip_set
from train.scoring.scorer import Scorer
from train.scoring.selection import choose_entries


def held_out_sets(data: Sequence[Path], groups: Collection[str]) -> list[Path]:
    """Return the sets of video clips of which some were held out of the training.

    Args:
        data: Sets of clips or of single crops. Sets of single crops are left out: without windows they
            cannot calibrate.
        groups: Groups held out of clip sets that state no split.

    Raises:
        ClipSetError: A clip set cannot be read.
    """
    kept = []
    for folder in data:
        clip_set = read_clip_set(folder)
        if entries_of(clip_set, "val", groups) and (folder / "clips.csv").is_file():
            kept.append(folder)
    return kept


def held_out_entries(
    clip_set: ClipSet, *, split: Split = "val", groups: Collection[str] | None = None
) -> list[Entry]:
    """Return the clips that were held out of the training.

    Args:
        clip_set: The clip set.
        split: Their split, if the clip set states splits.
        groups: Their groups, if it does not; None for all groups.

    Raises:
        ClipSetError: There is no such clip.
    """
    if clip_set.splits():
        return choose_entries(clip_set, split)
    return choose_entries(clip_set, "all", groups)


def score_held_out(
    scorer: Scorer,
    data: Sequence[Path],
    *,
    split: Split = "val",
    groups: Collection[str] | None = None,
    console: Console | None = None,
) -> list[ClipScores]:
    """Score the clips that were held out of the training.

    Args:
        scorer: The model.
        data: Clip sets.
        split: The split to score in clip sets that state splits.
        groups: The groups to score in clip sets that state none; None for all groups.
        console: Console of the progress bar; standard error by default.

    Returns:
        The scores of the clips; names of videos are prefixed with the number of the clip set.

    Raises:
        ClipSetError: A clip set cannot be read, or has no such clip.
    """
    scores: list[ClipScores] = []
    for number, folder in enumerate(data):
        clip_set = read_clip_set(folder)
        own = score_clip_set(
            scorer,
            clip_set,
            held_out_entries(clip_set, split=split, groups=groups),
            console=console,
            title="scoring held-out clips",
        )
        # Videos of two clip sets may have the same name.
        scores += [replace(score, video=f"{number}/{score.video}") for score in own]
    return scores
