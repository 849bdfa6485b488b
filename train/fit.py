"""Trains the detector in two stages: the trunk on single crops, then the LSTM on clips of its features.

The trunk learns from real forgeries and from forgeries made of the real crops (`streams.forge`), strong ones
first. For those the blended region is known, so a small convolution on the trunk's third stage is trained to
draw it: many labels a crop instead of one. It is not part of the detector.

Source: Shiohara & Yamasaki, CVPR 2022 (self-blended images); Li et al., "Face X-ray", CVPR 2020 (the region).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from streams.forge import forge, sample_forgery
from train.augment import varied
from train.clipset import load_clips, read_clip_set
from train.model import FEATURES, ModelConfig, ResNeXtLSTM, save_checkpoint
from train.scores import recrop

POOL_PX = 144
"""Side at which crops are held and forged: more than any input size, less to hold than the files' 224."""
MASK_CHANNELS = 1024
RESUME = "resume.pt"
SHOW_S, SAVE_S = 15.0, 240.0


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """States everything a run depends on besides the data.

    Args:
        sizes: Input sizes of the stages of the trunk, in order; the last is the detector's.
        crops: How many crops each of those stages sees.
        batch: Crops a step.
        lr: Peak learning rate of AdamW; cosine to nothing over the whole run after a linear warm-up.
        warmup: Steps of the warm-up.
        weight_decay: Of AdamW.
        strength: Strength of the made forgeries at the start and at the end.
        mask_weight: Weight of the region's loss.
        ema_decay: Of the moving average of the trunk's weights, which is what is kept.
        clip_passes: How often each clip is varied for the head's training set.
        head_steps: Steps of the head.
        precision: Of the forward pass, as Lightning Fabric names it.
        val_groups: Groups kept out of sets that state no split.
        seed: Of every draw.
    """

    sizes: tuple[int, ...] = (64, 112)
    crops: tuple[int, ...] = (100_000, 100_000)
    batch: int = 64
    lr: float = 8e-4
    warmup: int = 300
    weight_decay: float = 0.05
    strength: tuple[float, float] = (2.0, 0.8)
    mask_weight: float = 0.5
    ema_decay: float = 0.998
    clip_passes: int = 4
    head_steps: int = 400
    precision: str = "bf16-mixed"
    val_groups: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.crops):
            raise ValueError("sizes and crops must be given for the same number of stages")
        if self.batch < 8:
            raise ValueError(f"batch must be at least 8, not {self.batch}")


@dataclass(frozen=True)
class Pool:
    """Holds the training clips of one set: uint8 RGB (T, 144, 144, 3) each, with what they are."""

    real: tuple[NDArray[np.uint8], ...]
    fake: dict[str, tuple[NDArray[np.uint8], ...]]

    def draw(self, fake: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw a clip; of the forged ones each method is as likely."""
        clips = self.fake[str(rng.choice(sorted(self.fake)))] if fake and self.fake else self.real
        return clips[int(rng.integers(len(clips)))]


def read_pool(folder: Path, val_groups: Sequence[str], margin: float) -> Pool:
    """Read the training side of a set into memory.

    Args:
        folder: A set of clips or crops.
        val_groups: Groups to leave out where the set states no split.
        margin: Crop margin to bring the crops to.

    Returns:
        The clips.

    Raises:
        ClipSetError: The set cannot be read.
    """
    clip_set = read_clip_set(folder)
    stated = bool(clip_set.splits())
    entries = [
        entry
        for entry in clip_set.entries
        if (entry.split == "train" if stated else entry.group not in val_groups)
    ]
    real: list[NDArray[np.uint8]] = []
    fake: dict[str, list[NDArray[np.uint8]]] = {}
    for clip in load_clips(clip_set, entries):
        frames = recrop(clip.frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
        (fake.setdefault(clip.method, []) if clip.fake else real).append(frames)
    return Pool(tuple(real), {method: tuple(clips) for method, clips in fake.items()})


def draw_batch(
    pools: Sequence[Pool], count: int, size: int, strength: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a batch: half real; of the forged half, half found and half made.

    Args:
        pools: The training sets, each as likely.
        count: Crops in the batch.
        size: Side of the crops in pixels.
        strength: Of the made forgeries.
        rng: Where everything is drawn from.

    Returns:
        Crops uint8 (N, size, size, 3), labels float32 (N,) with 1 for fake, blended regions float32
        (N, size, size), and whether the region is known, bool (N,).
    """
    crops = np.empty((count, size, size, 3), np.uint8)
    regions = np.zeros((count, size, size), np.float32)
    labels = np.zeros(count, np.float32)
    known = np.ones(count, np.bool_)
    for index in range(count):
        pool = pools[int(rng.integers(len(pools)))]
        kind = index % 4  # real, found forgery, real, made forgery
        clip = pool.draw(kind == 1, rng)
        frame = clip[int(rng.integers(len(clip)))]
        if kind == 3:
            other = pool.draw(False, rng)
            donor = other[int(rng.integers(len(other)))] if rng.random() < 0.25 else None
            frame, region = forge(frame, sample_forgery(rng, strength=strength), donor=donor)
            region_px = np.repeat((region * 255).astype(np.uint8)[..., None], 3, 2)
            state = rng.bit_generator.state
            crops[index] = varied(frame[None], size, rng)[0]
            # The region moves with the picture: the same draw of the geometry, nothing of the light.
            again = np.random.Generator(np.random.PCG64())
            again.bit_generator.state = state
            regions[index] = _moved(region_px, size, again)
        else:
            crops[index] = varied(frame[None], size, rng)[0]
        labels[index] = kind % 2
        known[index] = kind != 1
    return (
        torch.from_numpy(crops),
        torch.from_numpy(labels),
        torch.from_numpy(regions),
        torch.from_numpy(known),
    )


def _moved(region: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    side = region.shape[0]
    scale = size / side * rng.uniform(0.97, 1.12)
    shift = size / 2 - scale * side / 2 + rng.normal(0, 0.02 * size, 2)
    mirror = rng.random() < 0.5
    turn = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    moved = cv2.warpAffine(region, turn, (size, size), flags=cv2.INTER_LINEAR)[..., 0]
    return np.asarray((moved[:, ::-1] if mirror else moved) / 255.0, np.float32)


class FrameTask(nn.Module):
    """The first stage: a logit a crop, and the blended region at a sixteenth of the crop's size."""

    def __init__(self, model: ResNeXtLSTM) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.logit = nn.Linear(FEATURES, 1)
        self.region = nn.Conv2d(MASK_CHANNELS, 1, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Turn crops uint8 (N, H, W, 3) into logits (N,) and region logits (N, H/16, W/16)."""
        trunk = self.backbone.trunk
        x = self.backbone.normalised(crops).contiguous(memory_format=torch.channels_last)
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        third = trunk.layer3(trunk.layer2(trunk.layer1(x)))
        features = trunk.avgpool(trunk.layer4(third)).flatten(1)
        return self.logit(features).squeeze(-1), self.region(third).squeeze(1)


def fit(
    data: Sequence[Path],
    out: Path,
    *,
    model_config: ModelConfig | None = None,
    config: FitConfig | None = None,
    console: Console | None = None,
) -> ResNeXtLSTM:
    """Train a detector and write its checkpoint.

    Args:
        data: Sets of clips or crops, as `read_clip_set` takes them.
        out: The checkpoint's directory; a run that was cut there goes on from what it last saved.
        model_config: The network's sizes; its input size must be the last stage's.
        config: The run.
        console: Where progress goes; standard error by default.

    Returns:
        The trained detector, in evaluation mode.

    Raises:
        ClipSetError: A set cannot be read.
        ValueError: The configurations disagree, or a set has no real clip to train on.
    """
    model_config, config = model_config or ModelConfig(), config or FitConfig()
    console = console or Console(stderr=True)
    if config.sizes[-1] != model_config.input_size:
        raise ValueError(
            f"the last stage is at {config.sizes[-1]} px, the model at {model_config.input_size}"
        )
    fabric = Fabric(accelerator="auto", devices=1, precision=config.precision)  # type: ignore[arg-type]
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    pools = [read_pool(folder, config.val_groups, model_config.crop_margin) for folder in data]
    for folder, pool in zip(data, pools, strict=True):
        console.log(f"{folder.name}: {len(pool.real)} real, {sum(map(len, pool.fake.values()))} forged clips")
        if not pool.real:
            raise ValueError(f"{folder} has no real clip to train on")
    model = ResNeXtLSTM(model_config)
    started = time.monotonic()
    _fit_trunk(fabric, model, pools, config, rng, out / RESUME, console)
    _fit_head(fabric, model, pools, config, rng, console)
    training: dict[str, Any] = {
        "fit": asdict(config),
        "sets": [folder.name for folder in data],
        "minutes": round((time.monotonic() - started) / 60, 1),
        "torch": torch.__version__,
    }
    save_checkpoint(out, model.eval(), training)
    return model


def _fit_trunk(
    fabric: Fabric,
    model: ResNeXtLSTM,
    pools: Sequence[Pool],
    config: FitConfig,
    rng: np.random.Generator,
    resume: Path,
    console: Console,
) -> None:
    task = FrameTask(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(task, multi_avg_fn=ema, use_buffers=True)
    optimizer = torch.optim.AdamW(task.parameters(), config.lr, weight_decay=config.weight_decay)
    wrapped, optimizer = fabric.setup(task, optimizer)
    sizes = [
        size
        for size, crops in zip(config.sizes, config.crops, strict=True)
        for _ in range(crops // config.batch)
    ]
    done = 0
    if resume.exists():
        done = _restored(resume, config, task, average, optimizer, rng)
        console.log(f"trunk: going on from step {done}")
    shown = saved = time.monotonic()
    mean_loss = mean_region = 0.0
    seen = 0
    wrapped.train()
    while done < len(sizes):
        progress = done / len(sizes)
        rate = config.lr * min(1.0, (done + 1) / config.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        strength = config.strength[0] + (config.strength[1] - config.strength[0]) * progress
        batch = draw_batch(pools, config.batch, sizes[done], strength, rng)
        crops, labels, regions, known = (value.to(fabric.device) for value in batch)
        logits, drawn = wrapped(crops)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
        wanted = F.adaptive_avg_pool2d(regions[:, None], drawn.shape[-2:])[:, 0]
        region = F.binary_cross_entropy_with_logits(drawn.float()[known], wanted[known])
        fabric.backward(loss + config.mask_weight * region)
        fabric.clip_gradients(wrapped, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(task)
        done, seen = done + 1, seen + 1
        mean_loss += (loss.item() - mean_loss) / min(seen, 100)
        mean_region += (region.item() - mean_region) / min(seen, 100)
        now = time.monotonic()
        if now - shown > SHOW_S:
            shown = now
            losses = f"loss {mean_loss:.3f}, region {mean_region:.3f}"
            console.log(f"trunk {done}/{len(sizes)}, {sizes[done - 1]} px, {losses}")
        if now - saved > SAVE_S or done == len(sizes):
            saved = now
            _save(resume, config, task, average, optimizer, rng, done)
    averaged = average.module
    assert isinstance(averaged, FrameTask)
    model.backbone.load_state_dict(averaged.backbone.state_dict())


def _save(
    resume: Path,
    config: FitConfig,
    task: FrameTask,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    done: int,
) -> None:
    state = {
        "config": json.dumps(asdict(config)),
        "task": task.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": json.dumps(rng.bit_generator.state),
        "done": done,
    }
    # Written beside and moved into place: a run cut while it saves still has what it saved before.
    draft = resume.with_suffix(".part")
    resume.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, draft)
    draft.replace(resume)


def _restored(
    resume: Path,
    config: FitConfig,
    task: FrameTask,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> int:
    state = torch.load(resume, weights_only=True)
    if json.loads(state["config"]) != json.loads(json.dumps(asdict(config))):
        raise ValueError(f"{resume} is of a run with another configuration; give another folder or remove it")
    task.load_state_dict(state["task"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    rng.bit_generator.state = json.loads(state["rng"])
    return int(state["done"])


def _fit_head(
    fabric: Fabric,
    model: ResNeXtLSTM,
    pools: Sequence[Pool],
    config: FitConfig,
    rng: np.random.Generator,
    console: Console,
) -> None:
    """Train the LSTM on features of the finished trunk, with windows of every allowed length."""
    size, window, least = model.config.input_size, model.config.window, model.config.min_frames
    features: list[Tensor] = []
    labels: list[float] = []
    model.eval()
    for _ in range(config.clip_passes):
        for pool in pools:
            clips = [(clip, 0.0) for clip in pool.real]
            clips += [(clip, 1.0) for group in pool.fake.values() for clip in group]
            for clip, label in clips:
                if len(clip) < window:
                    continue
                with torch.inference_mode():
                    crops = torch.from_numpy(varied(clip[:window], size, rng)).to(fabric.device)
                    features.append(model.backbone(crops).float().cpu())
                labels.append(label)
    if not features:
        raise ValueError(f"no clip has {window} frames; the LSTM cannot be trained on stills alone")
    console.log(f"head: {len(features)} clips of features")
    inputs, targets = torch.stack(features).clone(), torch.tensor(labels)
    weight = (targets == 0).sum() / (targets == 1).sum().clamp(min=1)
    head = model.head.to(fabric.device).train()
    optimizer = torch.optim.AdamW(head.parameters(), 5e-4, weight_decay=0.1)
    for step in range(config.head_steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * 0.5 * (1 + math.cos(math.pi * step / config.head_steps))
        chosen = torch.from_numpy(rng.integers(len(inputs), size=32))
        length = int(rng.integers(least, window + 1))
        start = int(rng.integers(0, window - length + 1))
        logits = head(inputs[chosen, start : start + length].to(fabric.device))
        loss = F.binary_cross_entropy_with_logits(
            logits, targets[chosen].to(fabric.device), pos_weight=weight.to(fabric.device)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    console.log(f"head: loss {loss.item():.3f}")
    model.eval()
