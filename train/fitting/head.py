"""Training of the LSTM head on clips of the trained backbone's features.

The head starts as the mean of the frames' logits and learns from there how frames depend on each other. Real
clips are few, so pseudo clips are made from single crops: the crop moves along a smooth camera path, each
frame has its own noise and compression, and the blend of a fake varies from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from streams.synthesis.fakes import make_fake, sample_fake_parameters
from train.data.crops import jpeg_roundtrip
from train.errors import ConfigInvalid, Diverged
from train.fitting.config import FitConfig
from train.models.detector import Head, ResNeXtLSTM
from train.sampling.augmentation import augment_clip
from train.sampling.pools import Clip, Pool

BATCH = 32
WEIGHT_DECAY = 0.1
CARRIER_STEP = 8
"""Every eighth unit of the LSTM initially outputs the frame's logit."""
CARRIER_SCALE = 0.1
"""Scale of the carried logit, so that it lies where tanh is nearly linear."""
OPEN_GATE = 4.0
"""Bias that opens a gate; its negative closes the gate."""


@torch.no_grad()
def initialise_as_mean(head: Head, frame_logit: nn.Linear) -> None:
    """Initialise a head so that it returns about the mean over time of a frame's logit.

    Some units output each frame's logit: input and output gates are open, the forget gate is closed. The
    other units keep their random weights, and their output weights are 0.

    Args:
        head: A head of one layer, changed in place.
        frame_logit: Layer from features to a frame's logit.
    """
    lstm, hidden = head.lstm, head.lstm.hidden_size
    units = torch.arange(0, hidden, CARRIER_STEP)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    input_weight, recurrent_weight, input_bias, recurrent_bias = map(lstm.get_parameter, names)
    # torch's order of gates: input, forget, cell, output.
    for gate, value in enumerate((OPEN_GATE, -OPEN_GATE, 0.0, OPEN_GATE)):
        rows = units + gate * hidden
        input_weight[rows], recurrent_weight[rows] = 0.0, 0.0
        input_bias[rows], recurrent_bias[rows] = value, 0.0
    cell = units + 2 * hidden
    input_weight[cell] = CARRIER_SCALE * frame_logit.weight.cpu()
    input_bias[cell] = CARRIER_SCALE * frame_logit.bias.cpu()
    gain = float(torch.sigmoid(torch.tensor(OPEN_GATE)) ** 2)
    head.out.weight.zero_()
    head.out.weight[0, units] = 1 / (CARRIER_SCALE * gain * len(units))
    head.out.bias.zero_()


def fit_head(
    fabric: Fabric, model: ResNeXtLSTM, pools: Sequence[Pool], config: FitConfig, console: Console
) -> None:
    """Train the head in place, with windows of every allowed length.

    Args:
        fabric: Fabric, launched; every process trains the same head on the same random draws.
        model: Detector with a trained backbone; it is left in evaluation mode.
        pools: Training clips, one pool per data set.
        config: The run.
        console: Console of the progress lines.

    Raises:
        ConfigInvalid: There are no clips of both classes.
        Diverged: The loss is not a finite number.
    """
    rng = np.random.default_rng((config.seed, 0x4EAD))
    model.to(fabric.device).eval()
    features, labels = _features(fabric, model, pools, config, rng, console)
    pos_weight = ((labels == 0).sum() / (labels == 1).sum()).to(fabric.device)
    head = model.head.train()
    optimizer = torch.optim.AdamW(head.parameters(), config.head_lr, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, T_max=config.head_steps)
    loss = torch.tensor(math.nan)
    for _ in range(config.head_steps):
        chosen = torch.from_numpy(rng.integers(len(features), size=BATCH))
        length = int(rng.integers(model.config.min_frames, model.config.window + 1))
        start = int(rng.integers(0, model.config.window - length + 1))
        logits = head(features[chosen, start : start + length].to(fabric.device))
        target = labels[chosen].to(fabric.device)
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    if not loss.isfinite():
        raise Diverged("the training of the head diverged; use a smaller lr or head_lr")
    console.log(f"head: loss {loss.item():.3f}")
    model.eval()


def _features(
    fabric: Fabric,
    model: ResNeXtLSTM,
    pools: Sequence[Pool],
    config: FitConfig,
    rng: np.random.Generator,
    console: Console,
) -> tuple[Tensor, Tensor]:
    """Return the backbone's features `(N, window, D)` of augmented clips, and their labels `(N,)`."""
    window, size = model.config.window, model.config.input_size
    features: list[Tensor] = []
    labels: list[float] = []
    with torch.inference_mode(), fabric.autocast():
        for turn in range(config.clip_passes):
            for clip, fake in _clips(pools, window, config, rng):
                crops = torch.from_numpy(augment_clip(clip, size, rng))
                features.append(model.backbone(crops.to(fabric.device)).float().cpu())
                labels.append(float(fake))
            console.log(f"head: features of {len(features)} clips, pass {turn + 1}/{config.clip_passes}")
    if len(set(labels)) < 2:
        raise ConfigInvalid(
            f"no clips of {window} frames of both classes; give a set of clips, or pseudo_clips"
        )
    return torch.stack(features), torch.tensor(labels)


def _clips(
    pools: Sequence[Pool], window: int, config: FitConfig, rng: np.random.Generator
) -> Iterator[tuple[Clip, bool]]:
    """Return every clip that is long enough, and pseudo clips, each with its label."""
    stills: list[tuple[Clip, bool, float]] = []
    for pool in pools:
        for clip, fake in pool.clips():
            if len(clip) >= window:
                start = int(rng.integers(len(clip) - window + 1))
                yield clip[start : start + window], fake
            if len(clip) == 1 or not fake:
                stills.append((clip, fake, pool.margin))
    for _ in range(config.pseudo_clips):
        clip, fake, margin = stills[int(rng.integers(len(stills)))]
        frame = clip[int(rng.integers(len(clip)))]
        synthetic = not fake and rng.random() < config.sampling.synthetic_share[1]
        strength = config.sampling.strength[1] if synthetic else None
        yield pseudo_clip(frame, window, rng, margin=margin, strength=strength), fake or synthetic


def pseudo_clip(
    face: NDArray[np.uint8],
    frames: int,
    rng: np.random.Generator,
    *,
    margin: float,
    strength: float | None = None,
) -> Clip:
    """Return a clip made of a single crop: smooth motion, and noise and compression of each frame.

    Args:
        face: The crop, RGB uint8 `(H, H, 3)`.
        frames: Number of frames.
        rng: Random generator.
        margin: Side of the crop as a multiple of the face box height.
        strength: Strength of the synthetic fake, which varies from frame to frame; None for a real clip.

    Returns:
        RGB uint8 `(frames, H, H, 3)`.
    """
    side = face.shape[0]
    path = _smooth(frames, rng) * np.array([0.02 * side, 0.02 * side, 0.03, 1.5])
    fake = None if strength is None else sample_fake_parameters(rng, strength=strength, margin=margin)
    noise, quality = rng.uniform(0, 2), int(rng.integers(60, 96))
    clip = []
    for x, y, scale, degrees in path:
        frame = face if fake is None else make_fake(face, fake.jitter(rng))[0]
        motion = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1 + scale)
        motion[:, 2] += x, y
        moved = cv2.warpAffine(frame, motion, (side, side), borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(moved + rng.normal(0, noise, moved.shape), 0, 255).astype(np.uint8)
        clip.append(jpeg_roundtrip(noisy, quality + int(rng.integers(-4, 5)), halve_chroma=True))
    return np.stack(clip)


def _smooth(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw four smooth paths `(frames, 4)` of unit variance: a cubic through a few random points."""
    points = rng.normal(0, 1, (max(2, frames // 5), 4))
    return np.asarray(cv2.resize(points, (4, frames), interpolation=cv2.INTER_CUBIC), np.float64)
