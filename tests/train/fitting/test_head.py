"""Stills become clips: they move a little, smoothly, and a forged one flickers."""

from __future__ import annotations

import numpy as np
import torch
from skimage.data import astronaut

from train.fitting.head import begin_at_the_mean, pseudo_clip
from train.models.config import ModelConfig
from train.models.detector import Head

FACE = np.ascontiguousarray(astronaut()[40:184, 150:294])  # type: ignore[no-untyped-call]


def test_a_still_becomes_a_clip() -> None:
    """Neighbouring frames differ a little, far ones more."""
    steps, spans = [], []
    for seed in range(6):
        clip = pseudo_clip(FACE, 16, np.random.default_rng(seed)).astype(np.float32)
        assert clip.shape == (16, 144, 144, 3)
        steps.append(np.abs(clip[1:] - clip[:-1]).mean())
        spans.append(max(np.abs(frame - clip[0]).mean() for frame in clip))
    assert 0 < np.mean(steps) < 0.6 * np.mean(spans)


def test_a_forged_still_flickers() -> None:
    """The forgery is made anew in every frame: its colour jumps where a real face's hardly changes."""

    def jumps(strength: float | None) -> float:
        clips = [pseudo_clip(FACE, 8, np.random.default_rng(seed), strength=strength) for seed in range(8)]
        middles = [clip[:, 52:92, 52:92].mean((1, 2, 3)) for clip in clips]
        return float(np.median([np.abs(np.diff(middle, n=2)).mean() for middle in middles]))

    assert jumps(1.0) > 1.5 * jumps(None)


def test_the_head_begins_at_the_mean() -> None:
    """Before it is trained it says what the mean of the frames' logits says."""
    torch.manual_seed(0)
    head, frame_logit = Head(ModelConfig(hidden=64)).eval(), torch.nn.Linear(2048, 1)
    with torch.no_grad():
        frame_logit.weight *= 5
        features = torch.rand(12, 16, 2048)
        begin_at_the_mean(head, frame_logit)
        wanted, found = frame_logit(features).squeeze(-1).mean(1), head(features)
    assert wanted.std() > 0.1
    assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()
