"""Fits a model's calibration on videos that it was not trained on, and keeps it with the model.

calibration = calibrate(Path("runs/first"), [Path("clips")])
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from runtime.model.bundle import change_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import MANIFEST_FILE
from train.data.clip_set import ClipSet, Entry, read_clip_set
from train.data.splits import Split
from train.evaluation.evaluate import choose_entries, score_set
from train.evaluation.measure import video_weights
from train.fitting.platt_scaling import CalibrationError, fit_calibration, with_thresholds
from train.models.checkpoint import save_calibration
from train.scoring.scorer import open_scorer
from train.scoring.clip_scores import ClipScores, Scorer, of_windows


def held_out(data: Sequence[Path], groups: Collection[str]) -> list[Path]:
    """Choose the sets that a model trained on them can be calibrated on.

    Args:
        data: Sets of clips or crops.
        groups: The groups kept out of sets that state no split.

    Returns:
        Those of clips with something kept out of the training.

    Raises:
        ClipSetError: A set cannot be read.
    """
    kept = []
    for folder in data:
        clip_set = read_clip_set(folder)
        own = {entry.group for entry in clip_set.entries}
        sides = clip_set.splits()
        if clip_set.folder.joinpath("clips.csv").is_file() and (
            "val" in sides or (not sides and own & {*groups})
        ):
            kept.append(folder)
    return kept


def calibrate(
    model: Path,
    data: Sequence[Path],
    *,
    split: Split = "val",
    groups: Collection[str] | None = None,
    error: float = 0.1,
    console: Console | None = None,
) -> Calibration:
    """Fit scale, offset and thresholds on full windows and write them into a model.

    Each video weighs alike, and so do the classes. Sets of single crops have no window and add nothing.

    Args:
        model: A checkpoint's directory, or a bundle's: its measured figures are those of another calibration
            then and are taken out.
        data: Sets of clips.
        split: The side to fit on in sets that state one, which must not be the training side.
        groups: The groups to fit on in sets that state no split; None for all of them.
        error: Share of wrong verdicts that the thresholds allow in each class.
        console: Where the progress bar goes; standard error by default.

    Returns:
        What was written.

    Raises:
        CalibrationError: The scores cannot be calibrated.
        ClipSetError: A set cannot be read, or has nothing on that side.
    """
    with open_scorer(model) as scorer:
        table = score_held_out(scorer, data, split=split, groups=groups, console=console)
    calibration = fit(table, error=error)
    if (model / MANIFEST_FILE).is_file():
        change_manifest(model, calibration=calibration, metrics={})
    else:
        save_calibration(model, calibration)
    return calibration


def score_held_out(
    scorer: Scorer,
    data: Sequence[Path],
    *,
    split: Split = "val",
    groups: Collection[str] | None = None,
    console: Console | None = None,
) -> list[ClipScores]:
    """Score what was kept out of the training.

    Args:
        scorer: The model.
        data: Sets of clips.
        split: The side to score of sets that state one.
        groups: The groups to score of sets that state no split; None for all of them.
        console: Where the progress bar goes; standard error by default.

    Returns:
        The scores of the clips.

    Raises:
        ClipSetError: A set cannot be read, or has nothing on that side.
    """
    table: list[ClipScores] = []
    for number, folder in enumerate(data):
        clip_set = read_clip_set(folder)
        entries = kept_entries(clip_set, split=split, groups=groups)
        found = score_set(scorer, clip_set, entries, console=console, title="scoring what was kept out")
        # Videos of two sets may have the same name.
        table += [replace(score, video=f"{number}/{score.video}") for score in found]
    return table


def kept_entries(
    clip_set: ClipSet, *, split: Split = "val", groups: Collection[str] | None = None
) -> list[Entry]:
    """Choose what was kept out of the training.

    Args:
        clip_set: The set.
        split: The side to choose if it states one.
        groups: The groups to choose if it does not; None for all of them.

    Returns:
        The clips.

    Raises:
        ClipSetError: Nothing is there.
    """
    if clip_set.splits():
        return choose_entries(clip_set, split)
    return choose_entries(clip_set, "all", groups)


def fit(table: Sequence[ClipScores], *, error: float = 0.1) -> Calibration:
    """Fit scale, offset and thresholds on scores.

    Args:
        table: The scores of clips.
        error: Share of wrong verdicts that the thresholds allow in each class.

    Returns:
        The calibration.

    Raises:
        CalibrationError: The scores cannot be calibrated.
    """
    windows = of_windows(table, Calibration())
    if len(windows) == 0:
        raise CalibrationError("no clip is long enough for a window; calibrate on clips of video")
    fitted = fit_calibration(windows.logit, windows.fake, video_weights(windows.names))
    return with_thresholds(fitted, windows.logit, windows.fake, error=error)
