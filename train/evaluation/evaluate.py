"""Evaluation of a model on labelled videos or clips.

    metrics = evaluate(Path("runs/first"), Path("clips"), Path("report"))
    print(metrics["video"]["auc"])

It writes `report.md`, `metrics.json` and three plots. Videos are scored as in `unmask scan`. Intervals are
bootstrapped by group: an original video with all of its fakes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from runtime.errors import os_reason
from runtime.files import check_folder_writable, write_atomically
from runtime.model.calibration import Calibration
from train.data.clip_set import ClipSet, is_clip_set, read_clip_set
from train.data.layouts import Layout, find_videos
from train.data.prepare import prepare
from train.data.splits import Split, check_known
from train.evaluation.measure import measure, to_json
from train.evaluation.notes import notes
from train.evaluation.plots import plot_histogram, plot_reliability, plot_roc
from train.evaluation.report import ReportError, report
from train.evaluation.robustness import measure_robustness, one_clip_per_video
from train.scoring.bootstrap import BootstrapConfig
from train.scoring.clip_scores import ClipScores, score_clip_set
from train.scoring.score_table import frame_scores, video_or_frame_scores, window_scores
from train.scoring.scorer import Scorer, open_scorer
from train.scoring.selection import choose_entries, choose_split, evaluation_spec


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation.

    Args:
        split: Split to evaluate on; `auto` takes `test`, else `val`, else everything. Of a data set of videos
            that states no split, `auto` takes everything.
        groups: Groups to evaluate on; with `auto` from every split. None for all.
        layout: Layout of a data set of videos.
        compression: Compression of FaceForensics++: `raw`, `c23` or `c40`.
        robustness: Whether to evaluate on corrupted clips too. Each of the 18 corruptions takes as long as
            one clip of every video.
        robustness_videos: Maximum number of videos for the robustness, half of them real; one clip of each.
        engine: Engine of a bundle: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        workers: Processes that prepare videos; None for one per core.
        bootstrap: Number and seed of the bootstrap draws. The seed also selects and corrupts clips.

    Raises:
        ValueError: `robustness_videos` is below 2.
    """

    split: Literal[Split, "auto", "all"] = "auto"
    groups: Collection[str] | None = None
    layout: Layout = "auto"
    compression: str = "c23"
    robustness: bool = False
    robustness_videos: int = 200
    engine: str = "auto"
    workers: int | None = None
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)

    def __post_init__(self) -> None:
        if self.robustness_videos < 2:
            raise ValueError(f"robustness_videos must be at least 2, not {self.robustness_videos}")


def evaluate(
    model: Path | None,
    data: Path,
    out: Path,
    config: EvaluationConfig | None = None,
    *,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a model and write the report.

    Args:
        model: Directory of a checkpoint or a bundle; None for the bundled model.
        data: A clip set, or a data set of videos in any layout of `train.data.layouts`. Videos are first
            prepared into `out/clips`, in full length, as the model needs them.
        out: Directory of the report, created if missing.
        config: Settings of the evaluation.
        console: Console of the progress bars; standard error by default.

    Returns:
        The content of `metrics.json`.

    Raises:
        BundleError: The bundle cannot be used.
        CheckpointError: The checkpoint cannot be read.
        LayoutError: The data set is not laid out as expected.
        GroupUnknown: The data set has no group of a name in `config.groups`.
        PrepareError: `out/clips` was prepared for another model.
        ClipSetError: The clips cannot be read, or there is none of that split.
        ReportError: The report cannot be written to `out`.
    """
    config = config or EvaluationConfig()
    try:
        # Checked before the scoring, which may take an hour.
        check_folder_writable(out)
    except OSError as error:
        raise ReportError(f"{out} cannot be written ({os_reason(error)}); give another --out") from error
    console = console or Console(stderr=True)
    with open_scorer(model, engine=config.engine) as scorer:
        clip_set, split = _clip_set(data, out, config, scorer, console)
        entries = choose_entries(clip_set, split, config.groups)
        scores = score_clip_set(scorer, clip_set, entries, console=console)
        metrics: dict[str, Any] = {
            "model": {"name": scorer.name, "identity": scorer.identity},
            "data": {
                "name": data.resolve().name,
                "split": split,
                "groups": sorted(config.groups) if config.groups else None,
            },
            "seed": config.bootstrap.seed,
            "replicates": config.bootstrap.replicates,
            **measure(scores, scorer, config.bootstrap),
        }
        if config.robustness:
            chosen = one_clip_per_video(
                entries,
                max_videos=config.robustness_videos,
                min_frames=scorer.min_frames,
                seed=config.bootstrap.seed,
            )
            metrics["robustness"] = measure_robustness(
                lambda title, transform: score_clip_set(
                    scorer, clip_set, chosen, console=console, title=title, transform=transform
                ),
                scorer.calibration or Calibration(),
                config.bootstrap,
            )
        metrics["notes"] = [*clip_set.notes, *notes(clip_set, entries, scorer, metrics["counts"])]
    plain: dict[str, Any] = to_json(metrics)
    _write(plain, scores, scorer.calibration, out)
    return plain


def _clip_set(
    data: Path, out: Path, config: EvaluationConfig, scorer: Scorer, console: Console
) -> tuple[ClipSet, Literal[Split, "all"]]:
    """Read the clip set, prepared from videos if necessary, and choose the split."""
    if is_clip_set(data):
        clip_set = read_clip_set(data)
        check_known(config.groups or (), (entry.group for entry in clip_set.entries))
        return clip_set, choose_split(config.split, clip_set.splits(), config.groups)
    seed = config.bootstrap.seed
    videos = find_videos(data, layout=config.layout, compression=config.compression, seed=seed)
    check_known(config.groups or (), (video.group for video in videos.videos))
    # A split that unmask draws here is not the one that the model was trained with.
    stated = {str(video.split) for video in videos.videos} if videos.has_official_split else set()
    split = choose_split(config.split, stated, config.groups)
    prepare(
        data,
        out / "clips",
        layout=config.layout,
        compression=config.compression,
        splits=None if split == "all" else [split],
        spec=evaluation_spec(scorer),
        workers=config.workers,
        seed=seed,
        console=console,
    )
    return read_clip_set(out / "clips"), split


def _write(
    metrics: dict[str, Any], scores: Sequence[ClipScores], stored: Calibration | None, out: Path
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    calibration = stored or Calibration()
    level, table = video_or_frame_scores(scores, calibration)
    plot_roc(table, out / "roc.png", level=level)
    plot_histogram(table, calibration, out / "scores.png", level=level)
    gather = frame_scores if level == "frame" else window_scores
    tables = {"raw": gather(scores, Calibration())} | (
        {"calibrated": gather(scores, stored)} if stored else {}
    )
    plot_reliability(tables, out / "reliability.png", level="frame" if level == "frame" else "window")
    write_atomically(out / "report.md", report(metrics))
