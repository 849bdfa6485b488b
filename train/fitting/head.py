"""Trains the LSTM on clips of the finished trunk's features.

It begins as the mean over the frames' own logits, and learns what time adds to that.

Real clips are few; stills become clips too: moved by a smooth camera path, with noise and compression of
every frame's own, and for a forged one a blend that flickers.
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

from streams.synthesis.fakes import make_fake, sample_fake_parameters
from train.fitting.config import FitConfig
from train.models.detector import Head, ResNeXtLSTM
from train.sampling.augmentation import augment_clip
from train.sampling.pools import Clip, Pool

BATCH = 32
CARRIERS, GENTLY, OPEN = 8, 0.1, 4.0
"""Every eighth unit of the LSTM begins by carrying the frame's logit, scaled to where a tanh is straight,
through gates whose bias holds them open."""


@torch.no_grad()
def begin_at_the_mean(head: Head, frame_logit: nn.Linear) -> None:
    """Set a head so that it answers about the mean over time of a frame's logit.

    Some units carry each frame's logit: input and output gates open, the forget gate shut. The others are as
    they were drawn and not listened to yet.

    Args:
        head: Of one layer; is changed in place.
        frame_logit: From features to logit.
    """
    lstm, hidden = head.lstm, head.lstm.hidden_size
    units = torch.arange(0, hidden, CARRIERS)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    into, own, bias, other = map(lstm.get_parameter, names)
    for gate, held in enumerate((OPEN, -OPEN, 0.0, OPEN)):  # torch's order: input, forget, cell, output
        rows = units + gate * hidden
        into[rows], own[rows], bias[rows], other[rows] = 0.0, 0.0, held, 0.0
    cell = units + 2 * hidden
    into[cell] = GENTLY * frame_logit.weight.cpu()
    bias[cell] = GENTLY * frame_logit.bias.cpu()
    passed = float(torch.sigmoid(torch.tensor(OPEN)) ** 2)
    head.out.weight.zero_()
    head.out.weight[0, units] = 1 / (GENTLY * passed * len(units))
    head.out.bias.zero_()


def fit_head(
    fabric: Fabric, model: ResNeXtLSTM, pools: Sequence[Pool], config: FitConfig, console: Console
) -> None:
    """Train the LSTM with windows of every allowed length.

    Args:
        fabric: Launched; every process trains the same head from the same draws.
        model: Its trunk is done; its head is trained in place, and it is left in evaluation mode.
        pools: The training sets.
        config: The run.
        console: Where progress goes.

    Raises:
        ValueError: There is nothing with both kinds to train on.
    """
    rng = np.random.default_rng((config.seed, 0x4EAD))
    window, least = model.config.window, model.config.min_frames
    model.to(fabric.device).eval()
    features: list[Tensor] = []
    labels: list[float] = []
    with torch.inference_mode(), fabric.autocast():
        for turn in range(config.clip_passes):
            for clip, fake in _clips(pools, window, config, rng):
                crops = torch.from_numpy(augment_clip(clip, model.config.input_size, rng))
                features.append(model.backbone(crops.to(fabric.device)).float().cpu())
                labels.append(float(fake))
            console.log(f"head: features of {len(features)} clips, pass {turn + 1}/{config.clip_passes}")
    targets = torch.tensor(labels)
    if len(set(labels)) < 2:
        raise ValueError(f"no clip of {window} frames of both kinds; give a set of clips, or some stills")
    inputs = torch.stack(features)
    weight = (targets == 0).sum() / (targets == 1).sum()
    head = model.head.train()
    optimizer = torch.optim.AdamW(head.parameters(), config.head_lr, weight_decay=0.1)
    loss = torch.tensor(math.nan)
    for step in range(config.head_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.head_lr * 0.5 * (1 + math.cos(math.pi * step / config.head_steps))
        chosen = torch.from_numpy(rng.integers(len(inputs), size=BATCH))
        length = int(rng.integers(least, window + 1))
        start = int(rng.integers(0, window - length + 1))
        logits = head(inputs[chosen, start : start + length].to(fabric.device))
        wanted = targets[chosen].to(fabric.device)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight.to(fabric.device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    console.log(f"head: loss {loss.item():.3f}")
    model.eval()


def _clips(
    pools: Sequence[Pool], window: int, config: FitConfig, rng: np.random.Generator
) -> Iterator[tuple[Clip, bool]]:
    """Give every clip that is long enough, and some stills made into clips."""
    stills: list[tuple[Clip, bool]] = []
    for pool in pools:
        for clip, fake in pool.clips():
            if len(clip) >= window:
                start = int(rng.integers(len(clip) - window + 1))
                yield clip[start : start + window], fake
            if len(clip) == 1 or not fake:
                stills.append((clip, fake))
    for _ in range(config.pseudo_clips):
        clip, fake = stills[int(rng.integers(len(stills)))]
        frame = clip[int(rng.integers(len(clip)))]
        made = not fake and rng.random() < config.sampling.synthetic_share[1]
        yield (
            pseudo_clip(frame, window, rng, strength=config.sampling.strength[1] if made else None),
            fake or made,
        )


def pseudo_clip(
    face: NDArray[np.uint8], frames: int, rng: np.random.Generator, *, strength: float | None = None
) -> Clip:
    """Make a clip of a still: a smooth path of position, scale and turn, noise and compression per frame.

    Args:
        face: uint8 RGB (H, H, 3).
        frames: How many.
        rng: Where everything is drawn from.
        strength: Of the forgery to make, which flickers a little; None for none.

    Returns:
        uint8 RGB (frames, H, H, 3).
    """
    side = face.shape[0]
    path = _smooth(frames, rng) * np.array([0.02 * side, 0.02 * side, 0.03, 1.5])
    forgery = None if strength is None else sample_fake_parameters(rng, strength=strength)
    noise, quality = rng.uniform(0, 2), int(rng.integers(60, 96))
    made = []
    for x, y, scale, degrees in path:
        frame = face if forgery is None else make_fake(face, forgery.jitter(rng))[0]
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1 + scale)
        turn[:, 2] += x, y
        moved = cv2.warpAffine(frame, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(moved + rng.normal(0, noise, moved.shape), 0, 255).astype(np.uint8)
        _, coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality + int(rng.integers(-4, 5))])
        made.append(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8))
    return np.stack(made)


def _smooth(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw four paths of unit spread without a jerk: a cubic through a few points."""
    points = rng.normal(0, 1, (max(2, frames // 5), 4))
    return np.asarray(cv2.resize(points, (4, frames), interpolation=cv2.INTER_CUBIC), np.float64)
