"""Measures a model on labelled videos or clips: `unmask train evaluate`.

    found = evaluate(Path("runs/first"), Path("clips"), Path("report"))
    print(found["video"]["auc"])

It writes `report.md`, `metrics.json` and three plots. Videos are scored as `scan` scores them, windows are
what live verdicts are made of. Groups (an original with all of its forgeries) are drawn together in every
interval.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.files import write_atomically
from runtime.model.calibration import Calibration
from streams.input.continuity import MAX_STEP
from streams.input.sampler import MIN_STEP
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSet, ClipSetError, Entry, is_clip_set, load_clips, read_clip_set
from train.data.layouts import Layout, find_videos
from train.data.prepare import prepare
from train.data.splits import Split
from train.evaluation.measure import Chance, measure, plain
from train.evaluation.plots import plot_histogram, plot_reliability, plot_roc
from train.evaluation.report import ReportError, report
from train.evaluation.robustness import Damage, measure_robustness, one_clip_each
from train.scoring.scorer import open_scorer
from train.scoring.clip_scores import ClipScores, Scorer, best_level, of_frames, of_windows, score_clips

# Crops tighter than this share of what the model wants show the face at another scale.
TIGHTEST = 0.97

Side = Literal["auto", "train", "val", "test", "all"]


def evaluate(
    model: Path | None,
    data: Path,
    out: Path,
    *,
    split: Side = "auto",
    groups: Collection[str] | None = None,
    layout: Layout = "auto",
    compression: str = "c23",
    robustness: bool = False,
    robustness_videos: int = 200,
    engine: str = "auto",
    workers: int | None = None,
    replicates: int = 1000,
    seed: int = 0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a model and write the report.

    Args:
        model: A checkpoint's or a bundle's directory; None for the bundle that ships with unmask.
        data: A set of clips, or a data set of videos in any layout of `train.data.layouts`; the latter is prepared
            into `out/clips` first, whole, as the model wants it.
        out: Where the report goes; made if it is not there.
        split: Which side to measure on; `auto` takes `test`, else `val`, else everything; of videos that no
            one has divided, everything.
        groups: Measure on these groups only, on whatever side they are; None for all.
        layout: Of a data set of videos.
        compression: Of FaceForensics++: `raw`, `c23` or `c40`.
        robustness: Score damaged clips too; it takes as long as everything else for each of 18 kinds and
            strengths.
        robustness_videos: At most so many videos, as many real as forged, one clip of each.
        engine: For a bundle: `auto`, `onnxruntime` or `tensorrt`.
        workers: Processes to prepare videos with; None for one a core.
        replicates: How often groups are drawn for an interval.
        seed: Of the draws, the damage and the choice of clips.
        console: Where the progress bar goes; standard error by default.

    Returns:
        What is in `metrics.json`.

    Raises:
        BundleError: The bundle cannot be used.
        LayoutError: The data set is not laid out as expected.
        PrepareError: `out/clips` was prepared for another model.
        ClipSetError: The clips cannot be read, or none is on that side.
        ReportError: The report cannot be written to `out`.
        ValueError: A number is out of its range.
    """
    _check_output(out)
    if robustness_videos < 2:
        raise ValueError(f"robustness_videos must be at least 2, not {robustness_videos}")
    chance = Chance(replicates=replicates, seed=seed)
    console = console or Console(stderr=True)
    name = data.resolve().name
    with open_scorer(model, engine=engine) as scorer:
        if is_clip_set(data):
            clip_set = read_clip_set(data)
            side = choose_side(split, clip_set.splits(), groups)
        else:
            videos = find_videos(data, layout=layout, compression=compression, seed=seed)
            # A division of ours says nothing about videos that a model was never trained on by it.
            sides = {str(video.split) for video in videos.videos} if videos.has_official_split else set()
            side = choose_side(split, sides, groups)
            prepare(
                data,
                out / "clips",
                layout=layout,
                compression=compression,
                splits=None if side == "all" else [side],
                spec=spec_for(scorer),
                workers=workers,
                seed=seed,
                console=console,
            )
            clip_set = read_clip_set(out / "clips")
        entries = choose_entries(clip_set, side, groups)
        table = score_set(scorer, clip_set, entries, console=console)
        found = {
            "model": {"name": scorer.name, "identity": scorer.identity},
            "data": {"name": name, "split": side, "groups": sorted(groups) if groups else None},
            "seed": seed,
            "replicates": replicates,
            **measure(
                table, scorer.calibration, min_frames=scorer.min_frames, window=scorer.window, chance=chance
            ),
        }
        if robustness:
            chosen = one_clip_each(entries, most=robustness_videos, min_frames=scorer.min_frames, seed=seed)
            found["robustness"] = measure_robustness(
                lambda title, damage: score_set(
                    scorer, clip_set, chosen, console=console, title=title, damage=damage
                ),
                scorer.calibration or Calibration(),
                chance,
            )
        found["notes"] = [*clip_set.notes, *_notes(clip_set, entries, scorer, found["counts"])]
    plain_found: dict[str, Any] = plain(found)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "metrics.json", json.dumps(plain_found, indent=2, allow_nan=False) + "\n")
    _plot(table, scorer.calibration, out)
    write_atomically(out / "report.md", report(plain_found))
    return plain_found


def _check_output(out: Path) -> None:
    # An hour of scoring must not end in a folder that could not be written from the start.
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ReportError(f"nothing can be written to {out}; give another --out")


def spec_for(scorer: Scorer) -> ClipSpec:
    """Say how videos have to be prepared for a model to be measured on all of them.

    Args:
        scorer: The model.

    Returns:
        Clips of one window that lie side by side, of whole videos.
    """
    return ClipSpec(
        size=max(224, scorer.input_size),
        margin=scorer.crop_margin,
        sample_hz=scorer.sample_hz,
        frames=scorer.window,
        min_frames=scorer.min_frames,
        per_video=None,
        max_seconds=None,
    )


def choose_side(
    split: Side, there: Collection[str], groups: Collection[str] | None = None
) -> Literal[Split, "all"]:
    """Choose the side to measure on.

    Args:
        split: As asked for; `auto` takes `test`, else `val`, else everything.
        there: The sides that there are.
        groups: The groups asked for; with `auto` these are taken from every side.

    Returns:
        The side.
    """
    if split != "auto":
        return split
    if groups is None and "test" in there:
        return "test"
    return "val" if groups is None and "val" in there else "all"


def choose_entries(
    clip_set: ClipSet, side: Literal[Split, "all"], groups: Collection[str] | None = None
) -> list[Entry]:
    """Choose what to measure on.

    Args:
        clip_set: The set.
        side: Which split.
        groups: Which groups; None for all.

    Returns:
        The clips in order of their shards.

    Raises:
        ClipSetError: Nothing is there.
    """
    kept = [
        entry
        for entry in clip_set.entries
        if side in ("all", entry.split) and (groups is None or entry.group in groups)
    ]
    if not kept:
        given = "" if groups is None else " and the groups given"
        raise ClipSetError(clip_set.folder, f"holds no clip of the split {side}{given}")
    return sorted(kept, key=lambda entry: (entry.shard, entry.clip))


def trained_on(clip_set: ClipSet, entries: Sequence[Entry], training: Mapping[str, Any]) -> bool:
    """Tell whether a model was trained on some of the clips, as far as it states what it was trained on.

    Args:
        clip_set: The set.
        entries: The clips.
        training: What the model states: `sets`, and `fit` with the `val_groups` that were kept out.
    """
    if clip_set.folder.resolve().name not in training.get("sets", ()):
        return False
    kept_out = set(training.get("fit", {}).get("val_groups", ()))
    stated = bool(clip_set.splits())
    return any(entry.split == "train" if stated else entry.group not in kept_out for entry in entries)


def score_set(
    scorer: Scorer,
    clip_set: ClipSet,
    entries: Sequence[Entry],
    *,
    console: Console | None = None,
    title: str = "scoring",
    damage: Damage | None = None,
) -> list[ClipScores]:
    """Score clips of a set, with a progress bar.

    Args:
        scorer: The model.
        clip_set: The set.
        entries: Which of its clips.
        console: Where the progress bar goes; standard error by default.
        title: What stands before it.
        damage: Gives the frames to score in place of a clip's own; None for those.

    Returns:
        One entry per clip.

    Raises:
        ClipSetError: A shard or a frame is missing or broken.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        clips = progress.track(load_clips(clip_set, entries), total=len(entries), description=title)
        return list(score_clips(clips, scorer, damage=damage))


def sampled_otherwise(entry: Entry, scorer: Scorer) -> bool:
    """Tell whether a clip is known to hold more or fewer crops a second than a model takes."""
    if not entry.sample_hz:
        return False
    return not MIN_STEP <= scorer.sample_hz / entry.sample_hz <= MAX_STEP


def _notes(
    clip_set: ClipSet, entries: Sequence[Entry], scorer: Scorer, counts: Mapping[str, int]
) -> list[str]:
    notes = []
    if trained_on(clip_set, entries, scorer.training):
        notes.append("the model was trained on some of these clips: the figures say nothing of unseen ones")
    if counts["groups"] < 30:
        notes.append(f"groups: only {counts['groups']}; the intervals are wide, and may still be too narrow")
    if not counts["videos_scored"]:
        notes.append(
            f"no clip has the {scorer.min_frames} samples that the model needs: frames alone are measured, "
            "as a diagnosis; nothing is said of live verdicts"
        )
    elif counts["clips_too_short"]:
        without = counts["videos"] - counts["videos_scored"]
        notes.append(
            f"{counts['clips_too_short']} clips are too short for a window of {scorer.min_frames} samples; "
            f"{without} of {counts['videos']} videos have no score and are in the frames' figures only"
        )
    if any(sampled_otherwise(entry, scorer) for entry in entries):
        step = [entry.sample_hz for entry in entries if entry.sample_hz]
        notes.append(
            f"clips are sampled at {min(step):g} to {max(step):g} Hz, the model wants {scorer.sample_hz:g}"
        )
    if clip_set.margin < TIGHTEST * scorer.crop_margin:
        notes.append(
            f"crops reach {clip_set.margin:g} face heights, live ones {scorer.crop_margin:g}: the model sees "
            "faces larger here than live, and the figures are of that"
        )
    if scorer.temporal is not None and not counts["videos_scored"]:
        notes.append(
            "single frames have no flicker, and the calibration is that of a model which looks at it: of "
            "their figures those without a threshold hold"
        )
    if scorer.calibration is None:
        notes.append("the model is not calibrated: thresholds are those of raw logits")
    return notes


def _plot(table: Sequence[ClipScores], stored: Calibration | None, out: Path) -> None:
    calibration = stored or Calibration()
    level, scored = best_level(table, calibration)
    plot_roc(scored, out / "roc.png", level=level)
    plot_histogram(scored, calibration, out / "scores.png", level=level)
    of = of_frames if level == "frame" else of_windows
    readings = {"raw": of(table, Calibration())} | ({"calibrated": of(table, stored)} if stored else {})
    plot_reliability(readings, out / "reliability.png", level="frame" if level == "frame" else "window")
