"""Writes the figures of an evaluation into the manifest of the bundle that was evaluated.

They are what the model says of itself; a test measures the bundled model again and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.model.bundle import change_manifest, load_bundle

FIGURES = (
    "auc",
    "accuracy_at_half",
    "balanced_accuracy_at_half",
    "equal_error_rate",
    "average_precision",
    "false_alarms_at_half",
    "detected_at_half",
)


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Choose from an evaluation what a manifest states.

    Args:
        found: What is in `metrics.json`.

    Returns:
        The side and groups measured on, the counts, and the figures of videos, or of frames where no clip
        was long enough for a video's score.
    """
    level = "video" if found["counts"]["videos_scored"] else "frame"
    return {
        "split": found["data"]["split"],
        "groups": found["data"]["groups"],
        "level": level,
        "videos": found["counts"]["videos"],
        "real": found["counts"]["real_videos"],
        "fake": found["counts"]["fake_videos"],
        **{name: found[level][name] for name in FIGURES},
        "seed": found["seed"],
        "replicates": found["replicates"],
        "notes": found["notes"],
    }


def record(bundle: Path, found: Mapping[str, Any]) -> None:
    """Write an evaluation's figures into a bundle's manifest, beside those on other data.

    Args:
        bundle: The bundle's directory.
        found: What `evaluate` returned for it.

    Raises:
        BundleError: It is no bundle.
    """
    metrics = {**load_bundle(bundle).metrics, found["data"]["name"]: summary(found)}
    change_manifest(bundle, metrics=metrics)
