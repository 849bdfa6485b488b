"""Draws the plots of a report as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from runtime.model.calibration import Calibration
from train.scoring.metrics import auc, expected_calibration_error, reliability
from train.scoring.clip_scores import Scored

REAL, FAKE = "#1b9e77", "#d95f02"


def plot_roc(scored: Scored, path: Path, *, level: str) -> None:
    """Draw the ROC curve of all forgeries and of each method against all reals.

    Args:
        scored: The scores.
        path: The PNG to write.
        level: What a score is of: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    methods = sorted({name for name, fake in zip(scored.methods, scored.fake, strict=True) if fake})
    parts = {"all": scored}
    if len(methods) > 1:
        for method in methods:
            mine = np.array([name == method for name in scored.methods], dtype=np.bool_)
            parts[method] = scored.where(~scored.fake | mine)
    for name, part in parts.items():
        if part.fake.any() and not part.fake.all():
            false_alarms, hits, _ = roc_curve(part.fake, part.logit)
            label = f"{name} ({auc(part.fake, part.logit):.3f})"
            axes.plot(false_alarms, hits, label=label, linewidth=2.5 if name == "all" else 1)
    axes.set(xlabel="reals called fake", ylabel="fakes called fake", title=f"ROC by {level} (AUC)")
    axes.set_aspect("equal")
    if len(axes.lines) > 1:
        axes.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def plot_histogram(scored: Scored, calibration: Calibration, path: Path, *, level: str) -> None:
    """Draw how scores of reals and fakes are spread: a detector with one answer for all shows here.

    Args:
        scored: The scores.
        calibration: For its thresholds.
        path: The PNG to write.
        level: What a score is of: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    bins = [i / 20 for i in range(21)]
    for name, part, colour in (
        ("real", scored.p_fake[~scored.fake], REAL),
        ("fake", scored.p_fake[scored.fake], FAKE),
    ):
        if len(part):
            weights = np.full(len(part), 1 / len(part))
            axes.hist(
                part, bins=bins, weights=weights, alpha=0.6, color=colour, label=f"{name} ({len(part)})"
            )
    for threshold in (calibration.threshold_real, calibration.threshold_fake):
        axes.axvline(threshold, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="p_fake", ylabel="share of the class", title=f"Scores by {level}", xlim=(0, 1))
    if len(scored):
        axes.legend(fontsize="small")
    _save(figure, path)


def plot_reliability(readings: Mapping[str, Scored], path: Path, *, level: str) -> None:
    """Draw the share of forgeries against the probability that was given, at equal priors.

    Args:
        readings: Title -> the scores.
        path: The PNG to write.
        level: What a score is of: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    for name, scored in readings.items():
        if scored.fake.any() and not scored.fake.all():
            found = reliability(scored.fake, scored.p_fake)
            error = expected_calibration_error(scored.fake, scored.p_fake)
            axes.plot(found.p_fake, found.fake_share, "o-", label=f"{name} (ECE {error:.3f})", linewidth=1.5)
    axes.set(
        xlabel="p_fake", ylabel="share of fakes", title=f"Reliability by {level}", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_aspect("equal")
    if len(axes.lines) > 1:
        axes.legend(loc="upper left", fontsize="small")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # A canvas of its own: no window system, and no state of pyplot shared with whoever calls this.
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
