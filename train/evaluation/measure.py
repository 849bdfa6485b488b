"""Metrics of an evaluation, computed from the scores of clips, without I/O.

An undefined metric is nan here and null in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from runtime.model.calibration import Calibration
from train.fitting.platt_scaling import CalibrationError, fit_platt
from train.scoring.bootstrap import BootstrapConfig, Estimate, bootstrap, bootstrap_difference
from train.scoring.clip_scores import ClipScores
from train.scoring.metrics import (
    accuracy_at,
    auc,
    average_precision,
    balanced_accuracy_at,
    equal_error_rate,
    expected_calibration_error,
)
from train.scoring.score_table import (
    ScoreTable,
    frame_scores,
    video_or_frame_scores,
    video_scores,
    video_weights,
    window_scores,
)
from train.scoring.scorer import Scorer

FOLDS = 5


def measure(scores: Sequence[ClipScores], scorer: Scorer, config: BootstrapConfig) -> dict[str, Any]:
    """Compute all metrics of an evaluation.

    Args:
        scores: Scores of all clips.
        scorer: The model, for its calibration and the lengths of its windows.
        config: Number and seed of the bootstrap draws.

    Returns:
        Metrics by name, `Estimate` where there is an interval; see `to_json`.
    """
    used = scorer.calibration or Calibration()
    videos, windows = video_scores(scores, used), window_scores(scores, used)
    single = scorer.min_frames == 1
    return {
        "counts": _counts(scores, videos, windows, scorer.min_frames),
        "video": _level(videos, used, config),
        "window": _level(windows, used, config),
        "frame": {
            "kind": "one frame" if single else f"diagnosis: each crop repeated {scorer.window} times",
            **_level(frame_scores(scores, used), used, config),
        },
        "methods": _methods(videos, used, config),
        "calibration": _calibration(scores, scorer.calibration),
        "ablation": _ablation(scores, used, config),
    }


def measure_summary(
    scores: Sequence[ClipScores], calibration: Calibration, config: BootstrapConfig
) -> dict[str, Any]:
    """Compute the few metrics of one row of a comparison, by video or, without windows, by frame.

    Args:
        scores: Scores of all clips.
        calibration: Calibration of the logits.
        config: Number and seed of the bootstrap draws.

    Returns:
        Metrics by name.
    """
    level, table = video_or_frame_scores(scores, calibration)
    return {
        "level": level,
        "scores": len(table),
        "auc": bootstrap(auc, table.fake, table.logit, table.groups, **asdict(config)),
        "accuracy_at_half": accuracy_at(0.5)(table.fake, table.p_fake),
        "fpr_at_half": _share_above(table.p_fake[~table.fake], 0.5),
        "tpr_at_half": _share_above(table.p_fake[table.fake], 0.5),
    }


def cross_validated_calibration(scores: Sequence[ClipScores]) -> dict[str, float]:
    """Compute the calibration error of Platt scaling, cross-validated by group.

    It is fitted on full windows of four fifths of the groups and applied to the other fifth.

    Args:
        scores: Scores of all clips.

    Returns:
        `ece_window` and `ece_min_frames`, and the means of `scale` and `offset`.

    Raises:
        CalibrationError: A part lacks a class, or higher logits do not mean fakes in it.
    """
    windows = window_scores(scores, Calibration())
    short = window_scores(scores, Calibration(), "short_window")
    folds = min(FOLDS, len(set(windows.groups)))
    if folds < 2:
        raise CalibrationError("fewer than two groups, too few to cross-validate; give a larger set")
    fitted = []
    calibrated = {"window": np.full(len(windows), np.nan), "min_frames": np.full(len(short), np.nan)}
    splits = GroupKFold(folds).split(windows.logit, groups=np.asarray(windows.groups))
    for train, test in splits:
        weights = video_weights([windows.videos[i] for i in train])
        calibration = fit_platt(windows.logit[train], windows.fake[train], weights)
        fitted.append(calibration)
        groups = {windows.groups[i] for i in test}
        for name, table in (("window", windows), ("min_frames", short)):
            for i, group in enumerate(table.groups):
                if group in groups:
                    calibrated[name][i] = calibration.p_fake(float(table.logit[i]))
    return {
        "ece_window": expected_calibration_error(windows.fake, calibrated["window"]),
        "ece_min_frames": expected_calibration_error(short.fake, calibrated["min_frames"]),
        "scale": float(np.mean([calibration.scale for calibration in fitted])),
        "offset": float(np.mean([calibration.offset for calibration in fitted])),
    }


def to_json(value: Any) -> Any:
    """Convert metrics to values that strict JSON can represent.

    Args:
        value: Nested mappings and sequences of metrics, with `Estimate` and numpy numbers among them.

    Returns:
        The same in plain types; None for numbers that are not finite.
    """
    if isinstance(value, Estimate):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _counts(
    scores: Sequence[ClipScores], videos: ScoreTable, windows: ScoreTable, min_frames: int
) -> dict[str, int]:
    labels = {clip.video: clip.fake for clip in scores}
    return {
        "videos": len(labels),
        "real_videos": sum(not fake for fake in labels.values()),
        "fake_videos": sum(labels.values()),
        "videos_scored": len(videos),
        "groups": len({clip.group for clip in scores}),
        "clips": len(scores),
        "clips_too_short": sum(clip.samples < min_frames for clip in scores),
        "windows": len(windows),
        "frames": sum(clip.samples for clip in scores),
    }


def _level(table: ScoreTable, calibration: Calibration, config: BootstrapConfig) -> dict[str, Any]:
    def estimate(metric: Any, values: NDArray[np.float64]) -> Estimate:
        return bootstrap(metric, table.fake, values, table.groups, **asdict(config))

    threshold = calibration.threshold_fake
    fpr1 = calibration.threshold_fpr1
    real, fake = table.p_fake[~table.fake], table.p_fake[table.fake]
    return {
        "scores": len(table),
        "auc": estimate(auc, table.logit),
        "average_precision": estimate(average_precision, table.logit),
        "equal_error_rate": estimate(equal_error_rate, table.logit),
        "accuracy_at_half": estimate(accuracy_at(0.5), table.p_fake),
        "balanced_accuracy_at_half": estimate(balanced_accuracy_at(0.5), table.p_fake),
        "fpr_at_half": _share_above(real, 0.5),
        "tpr_at_half": _share_above(fake, 0.5),
        "threshold": threshold,
        "accuracy_at_threshold": estimate(accuracy_at(threshold), table.p_fake),
        "balanced_accuracy_at_threshold": estimate(balanced_accuracy_at(threshold), table.p_fake),
        "threshold_fpr1": fpr1,
        "fpr_at_threshold_fpr1": math.nan if fpr1 is None else _share_above(real, fpr1),
        "tpr_at_threshold_fpr1": math.nan if fpr1 is None else _share_above(fake, fpr1),
    }


def _share_above(values: NDArray[np.float64], threshold: float) -> float:
    return float(np.mean(values >= threshold)) if len(values) else math.nan


def _methods(videos: ScoreTable, calibration: Calibration, config: BootstrapConfig) -> dict[str, Any]:
    """Compute metrics of the fakes of each method against all real videos."""
    methods = {}
    for method in sorted({name for name, fake in zip(videos.methods, videos.fake, strict=True) if fake}):
        own = np.array([name == method for name in videos.methods], dtype=np.bool_)
        table = videos.select(~videos.fake | own)
        detected = videos.p_fake[own & videos.fake]
        methods[method] = {
            "videos": len(detected),
            "groups": len({group for group, kept in zip(videos.groups, own, strict=True) if kept}),
            "auc": bootstrap(auc, table.fake, table.logit, table.groups, **asdict(config)),
            "tpr_at_half": _share_above(detected, 0.5),
            "tpr_at_threshold": _share_above(detected, calibration.threshold_fake),
        }
    return methods


def _ablation(
    scores: Sequence[ClipScores], calibration: Calibration, config: BootstrapConfig
) -> dict[str, Any]:
    """Compare the model with the network alone, and the network with the mean of its frames' logits."""
    full = video_scores(scores, calibration)
    network, frame_mean = (video_scores(scores, calibration, kind) for kind in ("network", "frame_mean"))

    def gain(better: ScoreTable, other: ScoreTable) -> Estimate:
        return bootstrap_difference(
            auc, better.fake, better.logit, other.logit, better.groups, **asdict(config)
        )

    has_temporal = any(clip.scan_logits != clip.scan_network_logits for clip in scores)
    return {
        "auc": auc(full.fake, full.logit),
        "auc_network": auc(network.fake, network.logit),
        "auc_frame_mean": auc(frame_mean.fake, frame_mean.logit),
        "lstm_gain": gain(network, frame_mean),
        "temporal_gain": gain(full, network) if has_temporal else None,
    }


def _calibration(scores: Sequence[ClipScores], stored: Calibration | None) -> dict[str, Any]:
    """Compute calibration errors raw, with the stored calibration, and cross-validated."""

    def errors(raw: ScoreTable, calibrated: ScoreTable) -> dict[str, float]:
        found = {"ece_raw": expected_calibration_error(raw.fake, raw.p_fake)}
        if stored is not None:
            found["ece_stored"] = expected_calibration_error(calibrated.fake, calibrated.p_fake)
        return found

    used = stored or Calibration()
    found: dict[str, Any] = {
        "stored": None if stored is None else asdict(stored),
        "window": errors(window_scores(scores, Calibration()), window_scores(scores, used)),
        "min_frames": errors(
            window_scores(scores, Calibration(), "short_window"), window_scores(scores, used, "short_window")
        ),
        "video": errors(video_scores(scores, Calibration()), video_scores(scores, used)),
    }
    try:
        found["cross_validated"] = cross_validated_calibration(scores)
    except CalibrationError as error:
        found["cross_validated"] = {"reason": str(error)}
    return found
