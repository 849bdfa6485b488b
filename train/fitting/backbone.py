"""Trains the trunk on single crops: a label a crop, and the blended region where it is known.

The trunk learns from real forgeries and from forgeries made of the real crops (`streams.synthesis.fakes`), strong ones
first. Where the forged region is known, small convolutions on the trunk's second and third stage are trained
to draw it: many labels a crop instead of one. They are not part of the detector. A teacher trains the same
way, and beside one the trunk learns from its maps and its judgement too.

Source: Shiohara & Yamasaki, CVPR 2022 (self-blended images); Li et al., "Face X-ray", CVPR 2020 (the region);
Burges et al., "Learning to rank using gradient descent", ICML 2005 (the ranking of pairs).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter

from runtime.files import atomic_path
from train.data.crops import recrop
from train.fitting.config import FitConfig
from train.models.detector import Backbone
from train.models.teacher import Teacher
from train.sampling.batches import Batches
from train.sampling.pools import Clip, Pool
from train.scoring.metrics import auc

RESUME = "resume.pt"
SHOW_S, SAVE_S = 15.0, 240.0
CHECKED_CLIPS, CHECKED_FRAMES = 600, 4
"""Of each set at most so many clips are looked at, and so many frames of each."""


class FrameOutputs(NamedTuple):
    """What a network says of crops: logits (N,), region logits at two scales, what a teacher sees there."""

    logits: Tensor
    regions: list[Tensor]
    hints: list[Tensor]


class FrameTask(nn.Module):
    """A logit a crop, the forged region at an eighth and a sixteenth of the crop's size, a teacher's view.

    Args:
        trunk: Ours or a teacher.
        hints: Channels of the teacher's maps, which are guessed too; empty without a teacher.
    """

    def __init__(self, trunk: Backbone | Teacher, hints: Sequence[int] = ()) -> None:
        super().__init__()
        self.trunk = trunk
        self.logit = nn.Linear(trunk.features, 1)
        self.regions = nn.ModuleList(nn.Conv2d(own, 1, 1) for own in trunk.widths[:2])
        self.hints = nn.ModuleList(
            nn.Conv2d(own, theirs, 1) for own, theirs in zip(trunk.widths, hints, strict=False)
        )

    def forward(self, crops: Tensor) -> FrameOutputs:
        """Judge crops uint8 RGB (N, H, W, 3)."""
        maps, features = self.trunk.stages(crops)
        drawn = [draw(seen).squeeze(1) for draw, seen in zip(self.regions, maps, strict=False)]
        guessed = [guess(seen) for guess, seen in zip(self.hints, maps, strict=False)]
        return FrameOutputs(self.logit(features).squeeze(-1), drawn, guessed)


def fit_backbone(
    fabric: Fabric,
    trunk: Backbone | Teacher,
    pools: Sequence[Pool],
    checks: Sequence[Pool],
    config: FitConfig,
    out: Path,
    console: Console,
    teacher: tuple[Teacher, nn.Linear] | None = None,
) -> nn.Linear:
    """Train the trunk; it ends with the averaged weights of the best look at the validation side.

    Args:
        fabric: Launched.
        trunk: Ours or a teacher, trained in place.
        pools: The training sets.
        checks: Their validation sides.
        config: The run.
        out: Where the resume state and the TensorBoard log go; a run that was cut there goes on.
        console: Where progress goes.
        teacher: Whose maps and judgement are learned too; None for none.

    Returns:
        The layer from a frame's features to its logit that the trunk was trained with.

    Raises:
        ValueError: The directory holds the state of a run with another configuration.
    """
    task = FrameTask(trunk, teacher[0].widths if teacher else ()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.to(fabric.device)
    ema = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(task, multi_avg_fn=ema, use_buffers=True)
    optimizer = torch.optim.AdamW(task.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    run = _Run(config, task, average, optimizer, out / RESUME)
    if run.restored():
        console.log(f"trunk: going on from step {run.done}")
    # Compiled in place, so that the weights keep their names.
    if config.compile:
        task.compile()
    wrapped, optimizer = fabric.setup(task, optimizer)
    if teacher:
        for part in teacher:
            part.to(fabric.device)
    batches = Batches(
        pools, config.sampling, seed=config.seed, rank=fabric.global_rank, processes=fabric.world_size
    )
    loader = DataLoader(
        Subset(batches, range(run.done, len(batches))), batch_size=None, num_workers=config.workers
    )
    log = SummaryWriter(out / "log", purge_step=run.done) if fabric.is_global_zero else None
    shown = saved = time.monotonic()
    means = np.zeros(3)
    wrapped.train()
    for seen, batch in enumerate(loader):
        if run.given_up():
            break
        rate = config.lr * min(1.0, (run.done + 1) / config.warmup_steps)
        rate *= 0.5 * (1 + math.cos(math.pi * run.done / len(batches)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        crops, labels, regions, known = (value.to(fabric.device) for value in batch)
        outputs = wrapped(crops)
        hint = torch.zeros((), device=labels.device)
        if teacher:
            with fabric.autocast():
                told, seen_by_it = _taught(teacher, crops)
            labels = (1 - config.distill_weight) * labels + config.distill_weight * told
            hint = torch.stack(
                [_hint_loss(*pair) for pair in zip(outputs.hints, seen_by_it, strict=True)]
            ).mean()
        loss = F.binary_cross_entropy_with_logits(outputs.logits.float(), labels)
        if config.pair_weight:
            loss = loss + config.pair_weight * _pair_loss(outputs.logits.float())
        region = torch.stack([_region_loss(some, regions, known) for some in outputs.regions]).mean()
        fabric.backward(loss + config.region_weight * region + config.feature_weight * hint)
        fabric.clip_gradients(wrapped, optimizer, max_norm=config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(task)
        run.done += 1
        means += (np.array([loss.item(), region.item(), hint.item()]) - means) / min(seen + 1, 100)
        now, last = time.monotonic(), run.done == len(batches)
        if config.validate_every and (run.done % config.validate_every == 0 or last):
            found = _look(average, checks, crops.shape[1])
            if crops.shape[1] == config.sampling.sizes[-1]:
                run.judge(found)
            console.log(f"trunk {run.done}: video AUC {', '.join(f'{n} {v:.3f}' for n, v in found.items())}")
            for name, value in found.items():
                if log:
                    log.add_scalar(f"val/auc/{name}", value, run.done)
        if now - shown > SHOW_S:
            shown = now
            console.log(
                f"trunk {run.done}/{len(batches)}, {crops.shape[1]} px, "
                f"loss {means[0]:.3f}, region {means[1]:.3f}" + (f", hint {means[2]:.3f}" if teacher else "")
            )
            if log:
                names = ("loss", "region", "hint", "lr")
                for name, value in zip(names, (*means, rate), strict=True):
                    log.add_scalar(f"train/{name}", value, run.done)
        if now - saved > SAVE_S or last:
            saved = now
            if fabric.is_global_zero:
                run.save()
    if log:
        log.close()
    task.load_state_dict(run.chosen())
    frame_logit: nn.Linear = task.logit
    return frame_logit


@torch.no_grad()
def _taught(teacher: tuple[Teacher, nn.Linear], crops: Tensor) -> tuple[Tensor, list[Tensor]]:
    network, logit = teacher
    maps, features = network.stages(crops)
    return torch.sigmoid(logit(features).float()).squeeze(-1), maps


def _hint_loss(guessed: Tensor, shown: Tensor) -> Tensor:
    """Give the share of the variance of the teacher's channels that the guess does not explain."""
    wanted = F.batch_norm(shown.float(), None, None, training=True)
    # Networks differ in how they round the size of a map.
    wanted = F.adaptive_avg_pool2d(wanted, (guessed.shape[-2], guessed.shape[-1]))
    return F.mse_loss(guessed.float(), wanted)


def _pair_loss(logits: Tensor) -> Tensor:
    """Return the ranking loss of a batch of pairs, a real crop and then its forgery (RankNet)."""
    real, fake = logits.view(-1, 2).unbind(1)
    return F.softplus(real - fake).mean()


def _region_loss(drawn: Tensor, regions: Tensor, known: Tensor) -> Tensor:
    wanted = F.adaptive_avg_pool2d(regions[:, None], (drawn.shape[-2], drawn.shape[-1]))[:, 0]
    return F.binary_cross_entropy_with_logits(drawn.float()[known], wanted[known])


@torch.inference_mode()
def _look(average: AveragedModel, checks: Sequence[Pool], size: int) -> dict[str, float]:
    """Measure the video AUC of the mean frame logit, at the size of the current stage."""
    task = average.module
    task.eval()
    device = next(task.parameters()).device
    found: dict[str, float] = {}
    for pool in checks:
        clips = pool.clips()
        clips = clips[:: max(1, len(clips) // CHECKED_CLIPS)]
        labels, scores = [], []
        for start in range(0, len(clips), 16):
            some = clips[start : start + 16]
            frames = [_spread(clip) for clip, _ in some]
            joined = recrop(np.concatenate(frames), margin=1, to_margin=1, size=size)
            with torch.autocast(device.type, torch.bfloat16):
                logits = task(torch.from_numpy(joined).to(device)).logits
            parts = torch.split(logits.float().cpu(), [len(part) for part in frames])
            scores += [part.mean().item() for part in parts]
            labels += [fake for _, fake in some]
        if len(set(labels)) == 2:
            found[pool.name] = auc(labels, scores)
    task.train()
    return found


def _spread(clip: Clip) -> Clip:
    chosen = np.unique(np.linspace(0, len(clip) - 1, CHECKED_FRAMES).round().astype(int))
    return np.asarray(clip[chosen], np.uint8)


class _Run:
    """What a cut run needs to go on."""

    def __init__(
        self,
        config: FitConfig,
        task: FrameTask,
        average: AveragedModel,
        optimizer: torch.optim.Optimizer,
        path: Path,
    ) -> None:
        self.done = 0
        self._config = config
        self._parts: dict[str, Any] = {"task": task, "average": average, "optimizer": optimizer}
        self._average = average
        self._path = path
        self._best: dict[str, Tensor] | None = None
        self._score = -math.inf
        self._looks_since = 0

    def judge(self, found: dict[str, float]) -> None:
        """Keep the weights if they are the best so far."""
        score = float(np.mean(list(found.values()))) if found else -math.inf
        self._looks_since += 1
        if score > self._score:
            self._score, self._looks_since = score, 0
            weights = self._average.module.state_dict()
            self._best = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def given_up(self) -> bool:
        """Tell whether the last looks were no better."""
        return bool(self._config.patience) and self._looks_since >= self._config.patience

    def chosen(self) -> dict[str, Tensor]:
        """Give the weights to keep."""
        return self._best or self._average.module.state_dict()

    def save(self) -> None:
        """Write it all; a run cut while it saves still has what it saved before."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {
            "config": self._stated(),
            "done": self.done,
            "best": self._best or {},
            "score": self._score,
            "looks_since": self._looks_since,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._path) as draft:
            torch.save(state, draft)

    def restored(self) -> bool:
        """Take up what was saved, if anything was."""
        if not self._path.exists():
            return False
        state = torch.load(self._path, weights_only=True, map_location="cpu")
        if state["config"] != self._stated():
            raise ValueError(
                f"{self._path} is of a run with another configuration; give another folder or remove it"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.done = int(state["done"])
        self._best = dict(state["best"]) or None
        self._score, self._looks_since = float(state["score"]), int(state["looks_since"])
        return True

    def _stated(self) -> str:
        # The head comes after the trunk: other settings of it are no other run.
        kept = {
            name: value
            for name, value in asdict(self._config).items()
            if name not in ("clip_passes", "pseudo_clips", "head_steps", "head_lr", "workers", "patience")
        }
        hints = [list(guess.weight.shape[:2]) for guess in self._parts["task"].hints]
        return json.dumps({**kept, "hints": hints}, sort_keys=True)
