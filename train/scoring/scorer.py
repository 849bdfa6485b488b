"""A model opened for scoring: a bundle through the runtime's engine, a checkpoint through torch.

with open_scorer(Path("runs/first")) as scorer:
    features = scorer.features(crops)                     # uint8 (N, H, W, 3) -> float32 (N, D)
    logits = scorer.logits(features[None])                # float32 (N, T, D) -> float32 (N,)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.model.bundle import load_bundle
from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import TemporalClassifier

if TYPE_CHECKING:
    from torch import nn

FeatureFunction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
LogitFunction = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model ready to score clips.

    Args:
        name: Name of the model.
        identity: Version of the model, and the engine that runs it.
        input_size: Side of the input crops in pixels.
        crop_margin: Side of the input crops as a multiple of the face box height.
        sample_hz: Crops of a face per second.
        window: Maximum number of crops per prediction.
        min_frames: Minimum number of crops per prediction.
        feature_every: Crops from one whose temporal residuals are used to the next, as in live use.
        calibration: The model's calibration; None if it has none.
        features: Backbone: RGB uint8 `(N, H, W, 3)` to float32 `(N, D)`.
        logits: Head: float32 `(N, T, D)` to float32 `(N,)`.
        training: How the model was trained, as its checkpoint or manifest states it.
        temporal: The model's temporal classifier; None if it has none.
    """

    name: str
    identity: str
    input_size: int
    crop_margin: float
    sample_hz: float
    window: int
    min_frames: int
    feature_every: int
    calibration: Calibration | None
    features: FeatureFunction
    logits: LogitFunction
    training: Mapping[str, Any] = field(default_factory=dict)
    temporal: TemporalClassifier | None = None


@contextmanager
def open_scorer(model: Path | None, *, engine: str = "auto", temporal: bool = True) -> Iterator[Scorer]:
    """Open a model for scoring.

    Args:
        model: Directory of a bundle or a checkpoint; None for the bundled model.
        engine: Engine of a bundle: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        temporal: Whether to use the temporal classifier of the model, if it has one.

    Returns:
        The scorer, for use in `with`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        BundleError: The bundle cannot be used.
        EngineError: The engine cannot run.
    """
    if model is not None and (model / "config.json").is_file():
        yield _checkpoint_scorer(model, temporal=temporal)
        return
    bundle = load_bundle(model)
    with open_engine(bundle, engine) as opened:
        yield Scorer(
            name=bundle.name,
            identity=f"bundle {bundle.digest[:12]}, {opened.describe()}",
            input_size=bundle.input_size,
            crop_margin=bundle.crop_margin,
            sample_hz=bundle.sample_hz,
            window=bundle.window,
            min_frames=bundle.min_frames,
            feature_every=bundle.feature_every,
            calibration=bundle.calibration,
            training=bundle.training,
            features=opened.features,
            logits=opened.logits,
            temporal=bundle.temporal if temporal else None,
        )


def _checkpoint_scorer(folder: Path, *, temporal: bool) -> Scorer:
    # Imported late: a bundle is scored without torch.
    from train.models.checkpoint import load_checkpoint

    # A broken temporal classifier must not prevent fitting a new one.
    checkpoint = load_checkpoint(folder, temporal=temporal)
    config = checkpoint.model.config
    features, logits = module_functions(checkpoint.model)
    return Scorer(
        name=folder.resolve().name,
        identity="checkpoint, torch",
        input_size=config.input_size,
        crop_margin=config.crop_margin,
        sample_hz=config.sample_hz,
        window=config.window,
        min_frames=config.min_frames,
        feature_every=config.feature_every,
        calibration=checkpoint.calibration,
        training=checkpoint.training,
        features=features,
        logits=logits,
        temporal=checkpoint.temporal,
    )


def module_functions(module: nn.Module) -> tuple[FeatureFunction, LogitFunction]:
    """Return the backbone and the head of a torch module as functions of numpy arrays.

    They run on the module's device and in evaluation mode; training modes are restored after each call.

    Args:
        module: Module with a `backbone` from uint8 `(N, H, W, 3)` to `(N, D)` and a `head` from `(N, T, D)`
            to logits `(N,)`.

    Returns:
        The backbone and the head.

    Raises:
        AttributeError: The module has no `backbone` or no `head`.
    """
    import torch

    backbone, head = module.get_submodule("backbone"), module.get_submodule("head")
    first = next(module.parameters(), None)
    device = torch.device("cpu") if first is None else first.device

    def run(part: nn.Module, values: NDArray[Any]) -> NDArray[np.float32]:
        # Per module: a frozen normalisation layer stays in evaluation mode during training.
        modes = [(inner, inner.training) for inner in module.modules()]
        module.eval()
        try:
            with torch.inference_mode():
                output: torch.Tensor = part(torch.from_numpy(values).to(device))
                return np.asarray(output.float().cpu().numpy(), dtype=np.float32)
        finally:
            for inner, training in modes:
                inner.training = training

    return lambda crops: run(backbone, crops), lambda windows: run(head, windows)
