"""Pseudo clips move smoothly, and a new head is the mean of frame logits."""

from __future__ import annotations

import numpy as np
import torch
from skimage.data import astronaut

from train.fitting.head import initialise_as_mean, pseudo_clip
from train.models.config import ModelConfig
from train.models.detector import Head

FACE = np.ascontiguousarray(astronaut()[40:184, 150:294])  # type: ignore[no-untyped-call]


def test_pseudo_clip_moves_smoothly() -> None:
    """Adjacent frames differ less than distant ones."""
    steps, spans = [], []
    for seed in range(6):
        clip = pseudo_clip(FACE, 16, np.random.default_rng(seed), margin=1.02).astype(np.float32)
        assert clip.shape == (16, 144, 144, 3)
        steps.append(np.abs(clip[1:] - clip[:-1]).mean())
        spans.append(max(np.abs(frame - clip[0]).mean() for frame in clip))
    assert 0 < np.mean(steps) < 0.6 * np.mean(spans)


def test_fake_pseudo_clip_varies_between_frames() -> None:
    """The fake varies from frame to frame: its colour jumps more than that of a real pseudo clip."""

    def jumps(strength: float | None) -> float:
        clips = [
            pseudo_clip(FACE, 8, np.random.default_rng(seed), margin=1.02, strength=strength)
            for seed in range(8)
        ]
        middles = [clip[:, 52:92, 52:92].mean((1, 2, 3)) for clip in clips]
        return float(np.median([np.abs(np.diff(middle, n=2)).mean() for middle in middles]))

    assert jumps(1.0) > 1.5 * jumps(None)


def test_pseudo_clip_is_compressed_as_rgb() -> None:
    """JPEG keeps fine detail of red better than that of blue, which counts less in its brightness."""

    def detail(channel: int) -> float:
        face = np.full((144, 144, 3), 128, np.uint8)
        face[:, ::2, channel] = 200
        clip = pseudo_clip(face, 4, np.random.default_rng(0), margin=1.02)
        return float(clip[..., channel].std((1, 2)).mean())

    assert detail(0) > 1.5 * detail(2)


def test_initial_head_is_the_mean_of_frame_logits() -> None:
    """Before its training the head returns about the mean of the frames' logits."""
    torch.manual_seed(0)
    head, frame_logit = Head(ModelConfig(hidden=64)).eval(), torch.nn.Linear(2048, 1)
    with torch.no_grad():
        frame_logit.weight *= 5
        features = torch.rand(12, 16, 2048)
        initialise_as_mean(head, frame_logit)
        expected, logits = frame_logit(features).squeeze(-1).mean(1), head(features)
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()
