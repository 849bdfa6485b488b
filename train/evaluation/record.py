"""Record of an evaluation's metrics in the manifest of the evaluated bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.model.bundle import change_manifest, load_bundle

RECORDED = (
    "auc",
    "accuracy_at_half",
    "balanced_accuracy_at_half",
    "equal_error_rate",
    "average_precision",
    "fpr_at_half",
    "tpr_at_half",
)


def record(bundle: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics of an evaluation into a bundle's manifest, next to the metrics on other data sets.

    Args:
        bundle: Directory of the bundle.
        metrics: Result of `evaluate` for this bundle.

    Raises:
        BundleError: The directory is not a valid bundle.
    """
    recorded = {**load_bundle(bundle).metrics, metrics["data"]["name"]: _summary(metrics)}
    change_manifest(bundle, metrics=recorded)


def _summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics by video, or by frame where no clip was long enough for a window."""
    level = "video" if metrics["counts"]["videos_scored"] else "frame"
    return {
        "split": metrics["data"]["split"],
        "groups": metrics["data"]["groups"],
        "level": level,
        "videos": metrics["counts"]["videos"],
        "real": metrics["counts"]["real_videos"],
        "fake": metrics["counts"]["fake_videos"],
        **{name: metrics[level][name] for name in RECORDED},
        "seed": metrics["seed"],
        "replicates": metrics["replicates"],
        "notes": metrics["notes"],
    }
