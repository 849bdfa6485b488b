"""Scorer with known logits, and clips of flat frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.data.clip_set import LabelledClip
from train.scoring.scorer import Scorer


def difference_scorer(*, window: int = 4, min_frames: int = 2, calls: list[int] | None = None) -> Scorer:
    """Return a model: the feature is a crop's mean, the logit a window's last feature minus its first."""

    def features(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if calls is not None:
            calls.append(len(crops))
        return np.asarray(crops.reshape(len(crops), -1).mean(axis=1, keepdims=True), dtype=np.float32)

    def logits(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        assert min_frames <= windows.shape[1] <= window
        return np.asarray(windows[:, -1, 0] - windows[:, 0, 0] + windows.shape[1] / 100, dtype=np.float32)

    return Scorer(
        name="difference",
        identity="test",
        input_size=8,
        crop_margin=1.3,
        sample_hz=8,
        window=window,
        min_frames=min_frames,
        feature_every=1,
        calibration=None,
        features=features,
        logits=logits,
    )


def flat_clip(values: list[int], name: str = "v_0", **facts: object) -> LabelledClip:
    """Return a clip of flat frames of the given grey values."""
    given: dict[str, object] = {"fake": True, "method": "swap", "group": "g", "height": 90.0, "margin": 1.3}
    frames = np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])
    return LabelledClip(clip=name, video=name.rpartition("_")[0], frames=frames, **{**given, **facts})  # type: ignore[arg-type]
