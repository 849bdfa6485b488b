"""Opens a model for scoring: a bundle through the runtime's engine, a checkpoint through torch.

with open_scorer(Path("runs/first")) as scorer:
    for scores in score_clips(clips, scorer):
        print(scores.clip, scores.windows)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.bundle import load_bundle
from runtime.engines import open_engine
from train.scores import Scorer


@contextmanager
def open_scorer(model: Path | None, *, engine: str = "auto") -> Iterator[Scorer]:
    """Open a model.

    Args:
        model: A bundle's or a checkpoint's directory; None for the bundle that ships with unmask.
        engine: For a bundle: `auto`, `onnxruntime` or `tensorrt`.

    Returns:
        The model, within `with`.

    Raises:
        BundleError: It is a bundle that cannot be used.
        EngineError: The engine cannot run.
    """
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
            features=opened.features,
            logits=opened.logits,
        )
