"""Figures of a benchmark, computed from the records of its videos, without I/O.

An undefined figure is nan here and null in JSON; see `train.evaluation.measure.to_json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from runtime.model.calibration import Calibration
from train.footage.appearance import BRIGHTNESS_GROUPS, TONE_GROUPS, brightness_group, tone_group
from train.footage.labelled import LabelledVideo, find_pairs
from train.footage.video_record import VideoRecord
from train.scoring.bootstrap import BootstrapConfig, Estimate, Metric, bootstrap, bootstrap_difference
from train.scoring.metrics import auc, expected_calibration_error

FPR_LIMITS = (0.01, 0.05)
HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class ScannedFootage:
    """Videos of a benchmark with their records, one each.

    Args:
        videos: The videos.
        records: Their records, in the same order.
        calibration: Thresholds of the model.
    """

    videos: Sequence[LabelledVideo]
    records: Sequence[VideoRecord]
    calibration: Calibration

    def select(self, kept: Callable[[LabelledVideo, VideoRecord], bool]) -> ScannedFootage:
        """Return the videos for which a function returns true."""
        rows = [row for row in zip(self.videos, self.records, strict=True) if kept(*row)]
        return ScannedFootage(
            videos=[video for video, _ in rows],
            records=[record for _, record in rows],
            calibration=self.calibration,
        )

    def readable(self) -> ScannedFootage:
        """Return the videos that could be scanned, with a score or without one."""
        return self.select(lambda _, record: record.state != "unreadable")

    def scored(self) -> ScannedFootage:
        """Return the videos that have a score."""
        return self.select(lambda _, record: record.p_fake is not None)

    @property
    def fake(self) -> NDArray[np.bool_]:
        """Labels `(N,)`."""
        return np.array([video.fake for video in self.videos], dtype=np.bool_)

    @property
    def p_fake(self) -> NDArray[np.float64]:
        """Scores `(N,)`, nan without a score."""
        return np.array([math.nan if r.p_fake is None else r.p_fake for r in self.records], dtype=np.float64)

    @property
    def called_fake(self) -> NDArray[np.bool_]:
        """Whether the score reaches the threshold of `fake`, and the image allows a decision, `(N,)`."""
        decided = np.array([record.state == "scored" for record in self.records], dtype=np.bool_)
        return decided & (self.p_fake >= self.calibration.threshold_fake)

    @property
    def groups(self) -> list[str]:
        """Groups `(N,)`."""
        return [video.group for video in self.videos]


def tpr_at_fpr(limit: float) -> Metric:
    """Return the detection rate at the lowest threshold with a bounded false positive rate, as a metric.

    Args:
        limit: Largest false positive rate, 0..1.
    """

    def tpr(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        y, s = np.asarray(fake).astype(np.bool_), np.asarray(score, dtype=np.float64)
        w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
        kept = w > 0
        if not (y[kept].any() and (~y[kept]).any()):
            return math.nan
        rates, detected, _ = roc_curve(y[kept], s[kept], sample_weight=w[kept], drop_intermediate=False)
        return float(detected[rates <= limit + 1e-12].max())

    return tpr


def mean_score(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Compute the weighted mean of the scores, whatever their labels; nan without weight."""
    s = np.asarray(score, dtype=np.float64)
    w = np.ones(len(s)) if weight is None else np.asarray(weight, dtype=np.float64)
    return float(np.average(s, weights=w)) if w.sum() > 0 else math.nan


def measure_footage(footage: ScannedFootage, config: BootstrapConfig) -> dict[str, Any]:
    """Compute all figures of one model: pooled, by data set, by method and by group of appearance.

    Args:
        footage: All videos.
        config: Number and seed of the bootstrap draws.

    Returns:
        Figures by name, `Estimate` where there is an interval.
    """
    names = sorted({video.data_set for video in footage.videos})
    data_sets = {
        name: set_figures(footage.select(lambda video, _, name=name: video.data_set == name), config)  # type: ignore[misc]
        for name in names
    }
    worst = _worst({name: figures["fpr"] for name, figures in data_sets.items()})
    brightness = _by_group(
        footage,
        BRIGHTNESS_GROUPS,
        lambda record: None if record.luma is None else brightness_group(record.luma),
        config,
    )
    tone = _by_group(
        footage,
        TONE_GROUPS,
        lambda record: None if record.luma is None else tone_group(record.tone_angle),
        config,
    )
    return {
        "pooled": set_figures(footage, config),
        "worst_set": worst,
        "data_sets": data_sets,
        "methods": _methods(footage, config),
        "brightness": brightness,
        "worst_brightness": _worst({name: group["fpr"] for name, group in brightness.items()}),
        "skin_tone": tone,
        "worst_skin_tone": _worst({name: group["fpr"] for name, group in tone.items()}),
    }


def set_figures(footage: ScannedFootage, config: BootstrapConfig) -> dict[str, Any]:
    """Compute the figures of one data set, or of several together with one threshold.

    Args:
        footage: Its videos.
        config: Number and seed of the bootstrap draws.
    """
    readable, scored = footage.readable(), footage.scored()
    fake, p_fake, groups = scored.fake, scored.p_fake, scored.groups
    options = asdict(config)
    figures: dict[str, Any] = {
        **_counts(footage),
        "auc": bootstrap(auc, fake, p_fake, groups, **options),
        "fpr": _share_of_class(readable, False, config),
        "tpr": _share_of_class(readable, True, config),
        "false_alarms_per_hour": _alarms_per_hour(footage, config),
        "pair_order": _pair_order(footage, config),
        "ece": expected_calibration_error(fake, p_fake),
    }
    # A video without a score is below every threshold.
    ranked = np.nan_to_num(readable.p_fake, nan=-1.0)
    for limit in FPR_LIMITS:
        figures[f"tpr_at_fpr_{limit:g}"] = bootstrap(
            tpr_at_fpr(limit), readable.fake, ranked, readable.groups, **options
        )
    return figures


def auc_difference(first: ScannedFootage, other: ScannedFootage, config: BootstrapConfig) -> Estimate:
    """Compute the AUC of one model minus that of another on the videos that both have scored.

    Args:
        first: Records of the first model.
        other: Records of the other model on the same videos, in the same order.
        config: Number and seed of the bootstrap draws.
    """
    both = [
        a.p_fake is not None and b.p_fake is not None
        for a, b in zip(first.records, other.records, strict=True)
    ]
    mask = np.array(both, dtype=np.bool_)
    groups = [group for group, kept in zip(first.groups, both, strict=True) if kept]
    return bootstrap_difference(
        auc, first.fake[mask], first.p_fake[mask], other.p_fake[mask], groups, **asdict(config)
    )


def _counts(footage: ScannedFootage) -> dict[str, Any]:
    reals = footage.select(lambda video, _: not video.fake)
    delays = [
        record.first_alarm_s
        for video, record in zip(footage.videos, footage.records, strict=True)
        if video.fake and record.first_alarm_s is not None
    ]
    return {
        "videos": len(footage.videos),
        "real": len(reals.videos),
        "fake": len(footage.videos) - len(reals.videos),
        "groups": len(set(footage.groups)),
        "real_groups": len(set(reals.groups)),
        "scored": sum(record.p_fake is not None for record in footage.records),
        "unreadable": sum(record.state == "unreadable" for record in footage.records),
        "real_hours": sum(record.seconds for record in reals.records) / HOUR_S,
        "real_time_fake": _ratio(reals.records, lambda record: record.fake),
        "uncertain_share": _ratio(footage.records, lambda record: record.uncertain),
        "seconds_to_alarm": float(np.median(delays)) if delays else math.nan,
    }


def _ratio(records: Sequence[VideoRecord], count: Callable[[VideoRecord], int]) -> float:
    """Return the share of the verdicts that a function counts."""
    verdicts = sum(record.verdicts for record in records)
    return sum(map(count, records)) / verdicts if verdicts else math.nan


def _share_of_class(readable: ScannedFootage, fake: bool, config: BootstrapConfig) -> Estimate:
    """Return the share of the real, or fake, videos that are called fake; those without a score are not."""
    part = readable.select(lambda video, _: video.fake == fake)
    called = part.called_fake.astype(np.float64)
    return bootstrap(mean_score, part.fake, called, part.groups, **asdict(config))


def _alarms_per_hour(footage: ScannedFootage, config: BootstrapConfig) -> Estimate:
    reals = footage.select(lambda video, _: not video.fake)
    alarms = np.array([record.alarms for record in reals.records], dtype=np.float64)
    hours = np.array([record.seconds / HOUR_S for record in reals.records], dtype=np.float64)

    def rate(fake: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
        w = np.ones(len(hours)) if weight is None else np.asarray(weight, dtype=np.float64)
        total = float(np.sum(w * hours))
        return float(np.sum(w * alarms)) / total if total > 0 else math.nan

    return bootstrap(rate, reals.fake, alarms, reals.groups, **asdict(config))


def _pair_order(footage: ScannedFootage, config: BootstrapConfig) -> Estimate:
    """Return the share of pairs whose fake has the higher score; equal scores count half."""
    p_fake = footage.p_fake
    pairs = [
        (fake, real)
        for fake, real in find_pairs(footage.videos)
        if not (math.isnan(p_fake[fake]) or math.isnan(p_fake[real]))
    ]
    order = np.array([0.5 + 0.5 * np.sign(p_fake[fake] - p_fake[real]) for fake, real in pairs])
    groups = [footage.videos[fake].group for fake, _ in pairs]
    return bootstrap(mean_score, np.ones(len(pairs)), order, groups, **asdict(config))


def _methods(footage: ScannedFootage, config: BootstrapConfig) -> dict[str, Any]:
    """Return the figures of the fakes of each method against the real videos of the same data sets."""
    methods = {}
    for method in sorted({video.method for video in footage.videos if video.fake}):
        names = {video.data_set for video in footage.videos if video.fake and video.method == method}
        part = footage.readable().select(
            lambda video, _, method=method, names=names: (  # type: ignore[misc]
                video.method == method if video.fake else video.data_set in names
            )
        )
        scored = part.scored()
        methods[method] = {
            "fake": int(part.fake.sum()),
            "auc": bootstrap(auc, scored.fake, scored.p_fake, scored.groups, **asdict(config)),
            "tpr": _share_of_class(part, True, config),
        }
    return methods


def _by_group(
    footage: ScannedFootage,
    names: Sequence[str],
    group_of: Callable[[VideoRecord], str | None],
    config: BootstrapConfig,
) -> dict[str, Any]:
    """Return the false positive rate of the real videos of each group of appearance."""
    reals = footage.readable().select(lambda video, _: not video.fake)
    groups = {}
    for name in names:
        part = reals.select(lambda _, record, name=name: group_of(record) == name)  # type: ignore[misc]
        if part.videos:
            groups[name] = {
                "real": len(part.videos),
                "real_groups": len(set(part.groups)),
                "fpr": _share_of_class(part, False, config),
                "false_alarms_per_hour": _alarms_per_hour(part, config),
            }
    return groups


def _worst(rates: Mapping[str, Estimate]) -> str | None:
    """Return the name with the highest false positive rate."""
    defined = {name: rate.value for name, rate in rates.items() if not math.isnan(rate.value)}
    return max(defined, key=lambda name: defined[name]) if defined else None
