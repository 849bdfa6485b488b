"""Turns the scores of clips into the figures of a report.

Pure. Every figure that is ranked by or compared comes with an interval by groups; what is undefined is nan
here and null in JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from runtime.model.calibration import Calibration
from train.fitting.platt_scaling import CalibrationError, fit_calibration
from train.scoring.metrics import (
    Estimate,
    accuracy_at,
    auc,
    average_precision,
    balanced_accuracy_at,
    bootstrap,
    bootstrap_difference,
    equal_error_rate,
    expected_calibration_error,
)
from train.scoring.clip_scores import ClipScores, Scored, best_level, of_frames, of_videos, of_windows

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Says how the intervals are drawn.

    Args:
        replicates: How often groups are drawn.
        seed: Of the draws.
    """

    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 1:
            raise ValueError(f"replicates must be at least 1, not {self.replicates}")


def measure(
    table: Sequence[ClipScores], stored: Calibration | None, *, min_frames: int, window: int, chance: Chance
) -> dict[str, Any]:
    """Measure everything that can be told from scores.

    Args:
        table: The scores of all clips.
        stored: The model's own calibration; None if it has none.
        min_frames: Of the model.
        window: Of the model.
        chance: How intervals are drawn.

    Returns:
        Figures by name, `Estimate` where there is an interval; see `plain`.
    """
    used = stored or Calibration()
    videos, windows, frames = of_videos(table, used), of_windows(table, used), of_frames(table, used)
    return {
        "counts": _counts(table, videos, windows, min_frames),
        "video": _level(videos, used, chance),
        "window": _level(windows, used, chance),
        "frame": {
            "kind": "one frame" if min_frames == 1 else f"diagnosis: each crop repeated {window} times",
            **_level(frames, used, chance),
        },
        "methods": _methods(videos, used, chance),
        "calibration": _calibration(table, stored),
        "sequence": _sequence(table, used, chance),
    }


def measure_line(table: Sequence[ClipScores], calibration: Calibration, chance: Chance) -> dict[str, Any]:
    """Measure the few figures of one line in a table of comparisons.

    Args:
        table: The scores of all clips.
        calibration: From logit to probability.
        chance: How intervals are drawn.

    Returns:
        Figures by name.
    """
    level, scored = best_level(table, calibration)
    return {
        "level": level,
        "scores": len(scored),
        "auc": bootstrap(auc, scored.fake, scored.logit, scored.groups, **asdict(chance)),
        "accuracy_at_half": accuracy_at(0.5)(scored.fake, scored.p_fake),
        "false_alarms_at_half": _share(scored.p_fake[~scored.fake], 0.5),
        "detected_at_half": _share(scored.p_fake[scored.fake], 0.5),
    }


def _counts(table: Sequence[ClipScores], videos: Scored, windows: Scored, min_frames: int) -> dict[str, int]:
    truth = {score.video: score.fake for score in table}
    return {
        "videos": len(truth),
        "real_videos": sum(not fake for fake in truth.values()),
        "fake_videos": sum(truth.values()),
        "videos_scored": len(videos),
        "groups": len({score.group for score in table}),
        "clips": len(table),
        "clips_too_short": sum(score.samples < min_frames for score in table),
        "windows": len(windows),
        "frames": sum(score.samples for score in table),
    }


def _level(scored: Scored, calibration: Calibration, chance: Chance) -> dict[str, Any]:
    def estimate(metric: Any, scores: NDArray[np.float64]) -> Estimate:
        return bootstrap(metric, scored.fake, scores, scored.groups, **asdict(chance))

    threshold = calibration.threshold_fake
    far1 = calibration.threshold_fpr1
    real, fake = scored.p_fake[~scored.fake], scored.p_fake[scored.fake]
    return {
        "scores": len(scored),
        "auc": estimate(auc, scored.logit),
        "average_precision": estimate(average_precision, scored.logit),
        "equal_error_rate": estimate(equal_error_rate, scored.logit),
        "accuracy_at_half": estimate(accuracy_at(0.5), scored.p_fake),
        "balanced_accuracy_at_half": estimate(balanced_accuracy_at(0.5), scored.p_fake),
        "false_alarms_at_half": _share(real, 0.5),
        "detected_at_half": _share(fake, 0.5),
        "threshold": threshold,
        "accuracy_at_threshold": estimate(accuracy_at(threshold), scored.p_fake),
        "balanced_accuracy_at_threshold": estimate(balanced_accuracy_at(threshold), scored.p_fake),
        "threshold_fpr1": far1,
        "false_alarms_at_far1": math.nan if far1 is None else _share(real, far1),
        "detected_at_far1": math.nan if far1 is None else _share(fake, far1),
    }


def _share(scores: NDArray[np.float64], threshold: float) -> float:
    return float(np.mean(scores >= threshold)) if len(scores) else math.nan


def _methods(videos: Scored, calibration: Calibration, chance: Chance) -> dict[str, Any]:
    found = {}
    for method in sorted({name for name, fake in zip(videos.methods, videos.fake, strict=True) if fake}):
        mine = np.array([name == method for name in videos.methods], dtype=np.bool_)
        part = videos.where(~videos.fake | mine)
        found[method] = {
            "videos": int(np.sum(mine & videos.fake)),
            "groups": len({group for group, kept in zip(videos.groups, mine, strict=True) if kept}),
            "auc": bootstrap(auc, part.fake, part.logit, part.groups, **asdict(chance)),
            "detected_at_half": _share(videos.p_fake[mine & videos.fake], 0.5),
            "detected_at_threshold": _share(videos.p_fake[mine & videos.fake], calibration.threshold_fake),
        }
    return found


def _sequence(table: Sequence[ClipScores], calibration: Calibration, chance: Chance) -> dict[str, Any]:
    """Compare a model with its parts: flicker left out, and the mean of the frames in the LSTM's place."""
    videos = of_videos(table, calibration)
    network, means = (of_videos(table, calibration, part) for part in ("network", "frame_mean"))

    def better(one: Scored, other: Scored) -> Estimate:
        return bootstrap_difference(auc, one.fake, one.logit, other.logit, one.groups, **asdict(chance))

    return {
        "auc_of_windows": auc(videos.fake, videos.logit),
        "auc_of_network": auc(network.fake, network.logit),
        "auc_of_frame_means": auc(means.fake, means.logit),
        "difference": better(network, means),
        "temporal": None
        if all(score.windows == score.network for score in table)
        else better(videos, network),
    }


def _calibration(table: Sequence[ClipScores], stored: Calibration | None) -> dict[str, Any]:
    found: dict[str, Any] = {"stored": None if stored is None else asdict(stored)}
    for name, reading in (("window", "windows"), ("min_frames", "short")):
        before = of_windows(table, Calibration(), reading)  # type: ignore[arg-type]
        entry: dict[str, Any] = {"ece_before": expected_calibration_error(before.fake, before.p_fake)}
        if stored is not None:
            after = of_windows(table, stored, reading)  # type: ignore[arg-type]
            entry["ece_stored"] = expected_calibration_error(after.fake, after.p_fake)
        found[name] = entry
    videos = of_videos(table, stored or Calibration())
    found["video"] = {
        "ece_stored" if stored else "ece_before": expected_calibration_error(videos.fake, videos.p_fake)
    }
    try:
        found["cross_fitted"] = cross_fitted(table)
    except CalibrationError as error:
        found["cross_fitted"] = {"reason": str(error)}
    return found


def cross_fitted(table: Sequence[ClipScores]) -> dict[str, float]:
    """Measure what Platt scaling can do, without fitting them on what they are measured on.

    They are fitted on full windows of four fifths of the groups and applied to the other fifth.

    Args:
        table: The scores of all clips.

    Returns:
        `ece_window` and `ece_min_frames`, and the means of `scale` and `offset`.

    Raises:
        CalibrationError: A part lacks a class, or its scores are upside down.
    """
    windows, short = of_windows(table, Calibration()), of_windows(table, Calibration(), "short")
    folds = min(FOLDS, len(set(windows.groups)))
    if folds < 2:
        raise CalibrationError("fewer than two groups: nothing to fit on; give a larger set")
    fitted = []
    calibrated = {"window": np.full(len(windows), np.nan), "min_frames": np.full(len(short), np.nan)}
    parts = GroupKFold(folds).split(windows.logit, groups=np.asarray(windows.groups))
    for learnt, held in parts:
        calibration = fit_calibration(
            windows.logit[learnt], windows.fake[learnt], video_weights([windows.names[i] for i in learnt])
        )
        fitted.append(calibration)
        groups = {windows.groups[i] for i in held}
        for name, scored in (("window", windows), ("min_frames", short)):
            for i, group in enumerate(scored.groups):
                if group in groups:
                    calibrated[name][i] = calibration.p_fake(float(scored.logit[i]))
    return {
        "ece_window": expected_calibration_error(windows.fake, calibrated["window"]),
        "ece_min_frames": expected_calibration_error(short.fake, calibrated["min_frames"]),
        "scale": float(np.mean([calibration.scale for calibration in fitted])),
        "offset": float(np.mean([calibration.offset for calibration in fitted])),
    }


def video_weights(names: Sequence[str]) -> NDArray[np.float64]:
    """Weigh windows so that each video counts alike, whatever its length.

    Args:
        names: (N,) the video of each window.

    Returns:
        (N,) above 0.
    """
    times = Counter(names)
    return np.array([1.0 / times[name] for name in names])


def plain(value: Any) -> Any:
    """Turn figures into what strict JSON can hold.

    Args:
        value: Nested mappings and sequences of figures, `Estimate` among them.

    Returns:
        The same of plain types; None for what is not a finite number.
    """
    if isinstance(value, Estimate):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
