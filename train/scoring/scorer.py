"""Opens a model for scoring: a bundle through the runtime's engine, a checkpoint through torch.

with open_scorer(Path("runs/first")) as scorer:
    for scores in score_clips(clips, scorer):
        print(scores.clip, scores.windows)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.model.bundle import load_bundle
from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import TemporalClassifier
from train.scoring.clip_scores import Scorer

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def open_scorer(model: Path | None, *, engine: str = "auto", temporal: bool = True) -> Iterator[Scorer]:
    """Open a model.

    Args:
        model: A bundle's or a checkpoint's directory; None for the bundle that ships with unmask.
        engine: For a bundle: `auto`, `onnxruntime` or `tensorrt`.
        flicker: Whether to judge flicker if the model does.

    Returns:
        The model, within `with`.

    Raises:
        CheckpointError: It is a checkpoint that cannot be read.
        BundleError: It is a bundle that cannot be used.
        EngineError: The engine cannot run.
    """
    if model is not None and (model / "config.json").is_file():
        # Imported late: a bundle is scored without torch.
        from train.models.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(model, temporal=temporal)
        network = checkpoint.model
        yield module_scorer(
            network,
            name=model.resolve().name,
            identity="checkpoint, torch",
            input_size=network.config.input_size,
            crop_margin=network.config.crop_margin,
            sample_hz=network.config.sample_hz,
            window=network.config.window,
            min_frames=network.config.min_frames,
            calibration=checkpoint.calibration,
            training=checkpoint.training,
            temporal=checkpoint.temporal,
        )
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
            calibration=bundle.calibration,
            training=bundle.training,
            features=opened.features,
            logits=opened.logits,
            temporal=bundle.temporal if temporal else None,
        )


def module_scorer(
    module: nn.Module,
    *,
    name: str,
    identity: str,
    input_size: int,
    crop_margin: float,
    sample_hz: float,
    window: int,
    min_frames: int,
    calibration: Calibration | None = None,
    training: Mapping[str, Any] | None = None,
    temporal: TemporalClassifier | None = None,
) -> Scorer:
    """Make a model in torch ready to score, on the device that it is on.

    Args:
        module: Has a `backbone` from uint8 crops `(N, H, W, 3)` to features `(N, D)` and a `head` from those
            `(N, T, D)` to logits `(N,)`. It is in evaluation mode within each call, and as it was after it.
        name: What the model calls itself.
        identity: Which one it is.
        input_size: Side of its crops in pixels.
        crop_margin: Side of its crops over the height of the face box.
        sample_hz: Crops of a face per second that it was trained on.
        window: The most crops it judges at once.
        min_frames: The fewest.
        calibration: None if it has none.
        training: How it was trained; None if that is not known.
        flicker: What the flicker of a window adds to its logit; None for nothing.

    Returns:
        The model.

    Raises:
        AttributeError: It has no `backbone` or `head`.
    """
    # Imported late: a bundle is scored without torch.
    import torch

    backbone, head = module.get_submodule("backbone"), module.get_submodule("head")
    first = next(module.parameters(), None)
    device = torch.device("cpu") if first is None else first.device

    def run(part: nn.Module, values: NDArray[Any]) -> NDArray[np.float32]:
        # Each part by itself: a frozen normalisation stays in evaluation mode in the middle of training.
        modes = [(inner, inner.training) for inner in module.modules()]
        module.eval()
        try:
            with torch.inference_mode():
                answer: torch.Tensor = part(torch.from_numpy(values).to(device))
                return np.asarray(answer.float().cpu().numpy(), dtype=np.float32)
        finally:
            for inner, training in modes:
                inner.training = training

    return Scorer(
        name=name,
        identity=identity,
        input_size=input_size,
        crop_margin=crop_margin,
        sample_hz=sample_hz,
        window=window,
        min_frames=min_frames,
        calibration=calibration,
        training=training or {},
        features=lambda crops: run(backbone, crops),
        logits=lambda windows: run(head, windows),
        temporal=temporal,
    )
