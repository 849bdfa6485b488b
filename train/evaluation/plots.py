"""Plots of a report, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from runtime.model.calibration import Calibration
from train.scoring.metrics import auc, expected_calibration_error, reliability
from train.scoring.score_table import ScoreTable

REAL, FAKE = "#1b9e77", "#d95f02"


def plot_roc(table: ScoreTable, path: Path, *, level: str) -> None:
    """Plot the ROC curve of all fakes, and of each method's fakes, against all real scores.

    Args:
        table: The scores.
        path: The PNG to write.
        level: Unit that one score belongs to: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    methods = sorted({name for name, fake in zip(table.methods, table.fake, strict=True) if fake})
    parts = {"all": table}
    if len(methods) > 1:
        for method in methods:
            own = np.array([name == method for name in table.methods], dtype=np.bool_)
            parts[method] = table.select(~table.fake | own)
    for name, part in parts.items():
        if part.fake.any() and not part.fake.all():
            fpr, tpr, _ = roc_curve(part.fake, part.logit)
            label = f"{name} ({auc(part.fake, part.logit):.3f})"
            axes.plot(fpr, tpr, label=label, linewidth=2.5 if name == "all" else 1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC by {level} (AUC)")
    axes.set_aspect("equal")
    if len(axes.lines) > 1:
        axes.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def plot_histogram(table: ScoreTable, calibration: Calibration, path: Path, *, level: str) -> None:
    """Plot histograms of the scores of real and fake, with the thresholds of the verdicts.

    Args:
        table: The scores.
        calibration: Calibration with the thresholds.
        path: The PNG to write.
        level: Unit that one score belongs to: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    bins = [i / 20 for i in range(21)]
    for name, p_fake, colour in (
        ("real", table.p_fake[~table.fake], REAL),
        ("fake", table.p_fake[table.fake], FAKE),
    ):
        if len(p_fake):
            weights = np.full(len(p_fake), 1 / len(p_fake))
            label = f"{name} ({len(p_fake)})"
            axes.hist(p_fake, bins=bins, weights=weights, alpha=0.6, color=colour, label=label)
    for threshold in (calibration.threshold_real, calibration.threshold_fake):
        axes.axvline(threshold, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="p_fake", ylabel="share of the class", title=f"Scores by {level}", xlim=(0, 1))
    if len(table):
        axes.legend(fontsize="small")
    _save(figure, path)


def plot_reliability(tables: Mapping[str, ScoreTable], path: Path, *, level: str) -> None:
    """Plot the observed share of fakes against the predicted probability, at equal priors.

    Args:
        tables: Label -> the scores.
        path: The PNG to write.
        level: Unit that one score belongs to: `video`, `window` or `frame`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    for name, table in tables.items():
        if table.fake.any() and not table.fake.all():
            diagram = reliability(table.fake, table.p_fake)
            label = f"{name} (ECE {expected_calibration_error(table.fake, table.p_fake):.3f})"
            axes.plot(diagram.p_fake, diagram.fake_share, "o-", label=label, linewidth=1.5)
    axes.set(
        xlabel="p_fake", ylabel="share of fakes", title=f"Reliability by {level}", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_aspect("equal")
    if len(axes.lines) > 1:
        axes.legend(loc="upper left", fontsize="small")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # Without pyplot: it needs a window system and shares state with the caller.
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
