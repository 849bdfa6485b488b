"""Fits a model's calibration on videos that it was not trained on, and keeps it with the model.

calibration = calibrate(Path("runs/first"), [Path("clips")])
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from runtime.bundle import MANIFEST, change_manifest
from runtime.verdict import Calibration
from train.calibration import CalibrationError, fit_calibration, with_thresholds, write_calibration
from train.clipset import read_clip_set
from train.evaluate import choose_entries, score_set
from train.measure import video_weights
from train.scorers import open_scorer
from train.scores import ClipScores, Scorer, of_windows
from train.splits import Split


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
    clips = [folder for folder in data if (folder / "clips.csv").is_file()]
    return [folder for folder in clips if groups or "val" in read_clip_set(folder).splits()]


def calibrate(
    model: Path,
    data: Sequence[Path],
    *,
    split: Split = "val",
    groups: Collection[str] | None = None,
    error: float = 0.1,
    console: Console | None = None,
) -> Calibration:
    """Fit temperature, bias and thresholds on full windows and write them into a model.

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
    if (model / MANIFEST).is_file():
        change_manifest(model, calibration=calibration, metrics={})
    else:
        write_calibration(model, calibration)
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
    for folder in data:
        clip_set = read_clip_set(folder)
        if clip_set.splits():
            entries = choose_entries(clip_set, split)
        else:
            entries = choose_entries(clip_set, "all", groups)
        table += score_set(scorer, clip_set, entries, console=console, title="scoring what was kept out")
    return table


def fit(table: Sequence[ClipScores], *, error: float = 0.1) -> Calibration:
    """Fit temperature, bias and thresholds on scores.

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
