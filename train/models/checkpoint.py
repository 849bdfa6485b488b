"""Checkpoint directory of a trained detector: weights, configuration, calibration, temporal classifier.

    model.safetensors   weights of the detector
    config.json         sizes of the detector, and how it was trained
    calibration.json    Platt scaling and thresholds; written by `unmask train fit` at its end
    temporal.json       temporal classifier; likewise

checkpoint = load_checkpoint(Path("runs/first"))
checkpoint.model(clips)                               # uint8 (N, T, H, W, 3) -> float32 (N,)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from runtime.errors import PathError
from runtime.files import atomic_path, write_atomically
from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import (
    TEMPORAL_FILE,
    TemporalClassifier,
    read_temporal_classifier,
    write_temporal_classifier,
)
from train.errors import TrainError
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.writing import writing

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CALIBRATION_FILE = "calibration.json"


class CheckpointError(PathError, TrainError):
    """Checkpoint directory that cannot be read."""

    advice = "give the directory that `unmask train fit` wrote"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Content of a checkpoint directory.

    Attributes:
        model: The detector, in evaluation mode, on the CPU.
        training: How it was trained, as JSON values.
        calibration: Its calibration; None if it has not been calibrated.
        temporal: Its temporal classifier; None if it has none or it was not read.
    """

    model: ResNeXtLSTM
    training: Mapping[str, Any]
    calibration: Calibration | None
    temporal: TemporalClassifier | None


def is_checkpoint(folder: Path) -> bool:
    """Return whether a directory contains a checkpoint."""
    return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()


def save_checkpoint(folder: Path, model: ResNeXtLSTM, training: Mapping[str, Any]) -> None:
    """Write weights and configuration; delete a calibration and a temporal classifier of earlier weights.

    Args:
        folder: Directory to write, created if missing.
        model: The detector.
        training: How it was trained, as JSON values.

    Raises:
        ModelNotWritten: It cannot be written.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    about = {"model": msgspec.structs.asdict(model.config), "training": dict(training)}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for fitted in (CALIBRATION_FILE, TEMPORAL_FILE):
            (folder / fitted).unlink(missing_ok=True)
        with atomic_path(folder / WEIGHTS_FILE) as draft:
            save_file(weights, draft)
        write_atomically(folder / CONFIG_FILE, json.dumps(about, indent=2, allow_nan=False) + "\n")


def save_training(folder: Path, training: Mapping[str, Any]) -> None:
    """Replace the training facts of a checkpoint."""
    about = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    about["training"] = dict(training)
    with writing(folder):
        write_atomically(folder / CONFIG_FILE, json.dumps(about, indent=2, allow_nan=False) + "\n")


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the calibration of a checkpoint."""
    text = json.dumps(asdict(calibration), indent=2, allow_nan=False)
    with writing(folder):
        write_atomically(folder / CALIBRATION_FILE, text + "\n")


def save_temporal(folder: Path, temporal: TemporalClassifier) -> None:
    """Write the temporal classifier of a checkpoint."""
    with writing(folder):
        write_temporal_classifier(folder / TEMPORAL_FILE, temporal)


def load_checkpoint(folder: Path, *, temporal: bool = True) -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: Directory that `save_checkpoint` wrote.
        temporal: Whether to read the temporal classifier; False if a broken one is to be replaced.

    Returns:
        Its content.

    Raises:
        CheckpointError: A file is missing or unreadable.
    """
    if not is_checkpoint(folder):
        raise CheckpointError(folder, f"contains no {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        about = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        # Not in checkpoints of runs that began before it was a setting.
        sizes = {"feature_every": ModelConfig().feature_every, **about["model"]}
        config = ModelConfig(**{name: sizes[name] for name in ModelConfig.__struct_fields__})
        model = ResNeXtLSTM(config)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        training = dict(about["training"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, f"cannot be read ({type(error).__name__})") from error
    return Checkpoint(
        model=model.eval(),
        training=training,
        calibration=_calibration(folder / CALIBRATION_FILE),
        temporal=_temporal(folder / TEMPORAL_FILE) if temporal else None,
    )


def _calibration(path: Path) -> Calibration | None:
    if not path.is_file():
        return None
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(**{field.name: stated[field.name] for field in fields(Calibration)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            path, f"cannot be read ({error})", "delete it and calibrate the checkpoint again"
        ) from error


def _temporal(path: Path) -> TemporalClassifier | None:
    if not path.is_file():
        return None
    try:
        return read_temporal_classifier(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            path, f"cannot be read ({error})", "run `unmask train temporal` again"
        ) from error
