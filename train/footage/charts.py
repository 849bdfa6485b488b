"""Charts of a benchmark, as PNG images in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from train.evaluation.plots import FAKE, REAL
from train.footage.figures import ScannedFootage
from train.footage.risk_coverage import ORDERS, risk_coverage
from train.scoring.metrics import auc, expected_calibration_error, reliability

# Vertical spread of the points of one row, so that equal scores do not hide each other.
SPREAD = 0.16


def score_chart(footage: ScannedFootage, title: str) -> bytes:
    """Draw the score of each video, a row per data set, with the thresholds.

    Args:
        footage: Videos with their records.
        title: Title of the chart.
    """
    scored = footage.scored()
    names = sorted({video.data_set for video in scored.videos}, reverse=True)
    figure = Figure(figsize=(8, 1.2 + 0.7 * max(1, len(names))), layout="constrained")
    axes = figure.add_subplot()
    jitter = np.random.default_rng(0)
    for row, name in enumerate(names):
        for fake, colour, offset in ((False, REAL, 0.2), (True, FAKE, -0.2)):
            part = scored.select(
                lambda video, _, name=name, fake=fake: video.data_set == name and video.fake == fake  # type: ignore[misc]
            )
            heights = row + offset + jitter.uniform(-SPREAD, SPREAD, len(part.videos))
            label = ("fake" if fake else "real") if row == 0 else None
            axes.plot(part.p_fake, heights, "o", color=colour, markersize=4, alpha=0.7, label=label)
    limits = footage.calibration
    for threshold in (limits.threshold_real, limits.threshold_fake):
        axes.axvline(threshold, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="p_fake", xlim=(0, 1), title=title)
    axes.set_yticks(range(len(names)), names)
    if names:
        axes.legend(loc="lower right", fontsize="small")
    return _png(figure)


def roc_chart(models: Mapping[str, ScannedFootage]) -> bytes:
    """Draw the ROC curves of all videos together, one per model.

    Args:
        models: Name of the model -> videos with their records.
    """
    figure, axes = _square_chart()
    for name, footage in models.items():
        scored = footage.scored()
        if scored.fake.any() and not scored.fake.all():
            fpr, tpr, _ = roc_curve(scored.fake, scored.p_fake)
            axes.plot(fpr, tpr, label=f"{name} ({auc(scored.fake, scored.p_fake):.3f})")
    axes.set(xlabel="false positive rate", ylabel="detection rate", title="ROC of all videos (AUC)")
    return _finished(figure, axes, legend="lower right")


def reliability_chart(models: Mapping[str, ScannedFootage]) -> bytes:
    """Draw the share of fakes against the predicted probability at equal priors, one curve per model.

    Args:
        models: Name of the model -> videos with their records.
    """
    figure, axes = _square_chart()
    for name, footage in models.items():
        scored = footage.scored()
        if scored.fake.any() and not scored.fake.all():
            diagram = reliability(scored.fake, scored.p_fake)
            error = expected_calibration_error(scored.fake, scored.p_fake)
            axes.plot(diagram.p_fake, diagram.fake_share, "o-", label=f"{name} (ECE {error:.3f})")
    axes.set(xlabel="p_fake", ylabel="share of fakes", title="Reliability", xlim=(0, 1), ylim=(0, 1))
    return _finished(figure, axes, legend="upper left")


def risk_coverage_chart(footage: ScannedFootage, title: str) -> bytes:
    """Draw the error of the windows that are kept by their share, a curve for each measure.

    Args:
        footage: Videos with their records.
        title: Title of the chart.
    """
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for order in ORDERS:
        curve = risk_coverage(footage, order)
        if len(curve.coverage):
            axes.plot(curve.coverage, curve.risk, label=order)
    axes.set(xlabel="share of the windows kept", ylabel="balanced error at 0.5", title=title)
    axes.set(xlim=(0, 1), ylim=(0, None))
    if axes.lines:
        axes.legend(loc="upper left", fontsize="small", title="given up first: low")
    return _png(figure)


def _square_chart() -> tuple[Figure, Axes]:
    """Return a figure with a dotted diagonal."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    return figure, axes


def _finished(figure: Figure, axes: Axes, *, legend: Literal["lower right", "upper left"]) -> bytes:
    """Return a square chart as PNG, with a legend if there is a curve."""
    axes.set_aspect("equal")
    if len(axes.lines) > 1:
        axes.legend(loc=legend, fontsize="small")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    # Without pyplot: it needs a window system and shares state with the caller.
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
