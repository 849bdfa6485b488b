"""Training of the backbone on single crops.

The backbone learns from dataset fakes and from synthetic fakes made from the real crops. Synthetic fakes are
obvious at first and become subtle. A teacher is trained in the same way.

    build -> train stage by stage (one crop size each) -> validate -> save the state -> best weights

Source: Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022 (synthetic fakes).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter

from train.data.crops import recrop
from train.errors import Diverged
from train.fitting.config import FitConfig
from train.fitting.frame_task import FrameTask, TrainedTeacher, frame_losses, teacher_outputs
from train.fitting.run_state import RESUME_FILE, RunState
from train.models.detector import Backbone
from train.models.teacher import Teacher
from train.models.writing import writing
from train.sampling.batches import Batch, Batches
from train.sampling.pools import Clip, Pool
from train.scoring.metrics import auc

PROGRESS_S, SAVE_S = 15.0, 240.0
"""Seconds between two progress lines, and between two saved states."""
VALIDATION_CLIPS, VALIDATION_FRAMES = 600, 4
"""Maximum number of clips of each data set, and of frames of each clip, in a validation."""
LOSSES = ("loss", "region", "feature")


@dataclass(kw_only=True)
class _Training:
    """State of a run that its steps share."""

    fabric: Fabric
    config: FitConfig
    task: FrameTask
    model: Any
    average: AveragedModel
    optimizer: Any
    schedule: LRScheduler
    state: RunState
    teacher: TrainedTeacher | None
    validation_pools: Sequence[Pool]
    total_steps: int
    console: Console
    log: SummaryWriter | None
    losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(LOSSES)))
    steps_here: int = 0
    reported: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)


def fit_backbone(
    fabric: Fabric,
    backbone: Backbone | Teacher,
    pools: Sequence[Pool],
    validation_pools: Sequence[Pool],
    config: FitConfig,
    out: Path,
    console: Console,
    facts: Mapping[str, Any],
    teacher: TrainedTeacher | None = None,
) -> nn.Linear:
    """Train a backbone in place, and load the averaged weights of the best validation.

    Args:
        fabric: Fabric, launched.
        backbone: The detector's backbone, or a teacher.
        pools: Training clips, one pool per data set.
        validation_pools: Validation clips, one pool per data set.
        config: The run.
        out: Directory of the resume state and the TensorBoard log; an interrupted run is resumed from there.
        console: Console of the progress lines.
        facts: What the weights depend on besides, as JSON values by name; they must be the same on resuming.
        teacher: Teacher to learn from; None for none.

    Returns:
        The layer from features to a frame's logit that the backbone was trained with.

    Raises:
        ConfigInvalid: The directory holds the state of a run with another configuration or other facts.
        Diverged: Gradients or logits are no finite numbers any more.
    """
    batches = Batches(
        pools, config.sampling, seed=config.seed, rank=fabric.global_rank, processes=fabric.world_size
    )
    run = _build(fabric, backbone, validation_pools, config, len(batches), out, console, facts, teacher)
    for size, steps in _stages(config.sampling.steps(fabric.world_size)):
        remaining = range(max(steps.start, run.state.step), steps.stop)
        if remaining and not run.state.stopped:
            _train_stage(run, size, Subset(batches, remaining))
    if run.log:
        run.log.close()
    # Only the first process validates and has the best weights.
    run.task.load_state_dict(fabric.broadcast(run.state.best_weights() if fabric.is_global_zero else {}))
    frame_logit: nn.Linear = run.task.logit
    return frame_logit


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, *, warmup_steps: int, total_steps: int
) -> LRScheduler:
    """Return a linear warm-up times a cosine to 0 over the whole run.

    Args:
        optimizer: The optimizer, with the peak learning rate.
        warmup_steps: Steps of the warm-up, at least 1.
        total_steps: Steps of the run.
    """
    warmup = LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
    # ChainedScheduler multiplies both factors in every step; SequentialLR would run one after the other.
    return ChainedScheduler([warmup, CosineAnnealingLR(optimizer, T_max=total_steps)])


def _build(
    fabric: Fabric,
    backbone: Backbone | Teacher,
    validation_pools: Sequence[Pool],
    config: FitConfig,
    total_steps: int,
    out: Path,
    console: Console,
    facts: Mapping[str, Any],
    teacher: TrainedTeacher | None,
) -> _Training:
    """Set up the model, optimizer and schedule, and restore the state of an interrupted run."""
    widths = teacher[0].widths if teacher else ()
    task = FrameTask(backbone, widths).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.to(fabric.device)
    ema = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(task, multi_avg_fn=ema, use_buffers=True)
    optimizer = torch.optim.AdamW(task.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = learning_rate_schedule(optimizer, warmup_steps=config.warmup_steps, total_steps=total_steps)
    state = RunState(
        out / RESUME_FILE,
        config,
        {"task": task, "average": average, "optimizer": optimizer, "schedule": schedule},
        average,
        facts,
    )
    if state.restore():
        console.log(f"backbone: resumed at step {state.step}")
    log = None
    if fabric.is_global_zero:
        with writing(out):
            log = SummaryWriter(out / "log", purge_step=state.step)
    # Compiled in place, so that the weights keep their names.
    if config.compile:
        task.compile()
    model, wrapped_optimizer = fabric.setup(task, optimizer)
    model.train()
    for part in teacher or ():
        part.to(fabric.device)
    return _Training(
        fabric=fabric,
        config=config,
        task=task,
        model=model,
        average=average,
        optimizer=wrapped_optimizer,
        schedule=schedule,
        state=state,
        teacher=teacher,
        validation_pools=validation_pools,
        total_steps=total_steps,
        console=console,
        log=log,
    )


def _stages(sizes: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Return the crop size and the steps of each stage."""
    start = 0
    for size, steps in groupby(sizes):
        stop = start + len(list(steps))
        yield size, range(start, stop)
        start = stop


def _train_stage(run: _Training, size: int, batches: Subset[Batch]) -> None:
    """Train on the remaining batches of a stage; stop early without improvement."""
    every = run.config.validate_every
    for batch in DataLoader(batches, batch_size=None, num_workers=run.config.workers):
        _train_step(run, batch)
        last = run.state.step == run.total_steps
        if every and (run.state.step % every == 0 or last):
            _validate(run, size)
        _report_progress(run, size)
        _save(run, now=last or run.state.stopped)
        if run.state.stopped:
            return


def _train_step(run: _Training, batch: Batch) -> None:
    batch = Batch(*(value.to(run.fabric.device) for value in batch))
    outputs = run.model(batch.crops)
    from_teacher = None
    if run.teacher:
        with run.fabric.autocast():
            from_teacher = teacher_outputs(run.teacher, batch.crops)
    losses = frame_losses(outputs, batch, from_teacher, run.config)
    run.fabric.backward(losses.total(run.config))
    norm = run.fabric.clip_gradients(
        run.model, run.optimizer, max_norm=run.config.max_grad_norm, error_if_nonfinite=False
    )
    # The same in all processes, unlike the loss.
    if norm is not None and not norm.isfinite():
        raise _diverged(run.state.step + 1)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.schedule.step()
    run.average.update_parameters(run.task)
    run.state.step += 1
    run.steps_here += 1
    # Running mean of about the last hundred steps.
    run.losses += (np.array([loss.item() for loss in losses]) - run.losses) / min(run.steps_here, 100)


def _validate(run: _Training, size: int) -> None:
    """Validate on the first process, keep the best weights, and decide for all processes whether to stop."""
    if run.fabric.is_global_zero:
        try:
            aucs = validation_aucs(run.fabric, run.average.module, run.validation_pools, size)
        except FloatingPointError as error:
            raise _diverged(run.state.step) from error
        if size == run.config.sampling.sizes[-1]:
            run.state.record_validation(aucs)
        text = ", ".join(f"{name} {value:.3f}" for name, value in aucs.items())
        run.console.log(f"backbone {run.state.step}: validation AUC by video: {text}")
        for name, value in aucs.items():
            if run.log:
                run.log.add_scalar(f"val/auc/{name}", value, run.state.step)
    run.state.stopped = bool(run.fabric.broadcast(run.state.out_of_patience()))
    if run.state.stopped and run.state.step < run.total_steps:
        run.console.log(
            f"backbone: stopped at step {run.state.step} of {run.total_steps} without improvement "
            f"(patience {run.config.patience})"
        )


def _diverged(step: int) -> Diverged:
    return Diverged(f"the training of the backbone diverged at step {step}; begin again with a smaller lr")


@torch.inference_mode()
def validation_aucs(fabric: Fabric, task: nn.Module, pools: Sequence[Pool], size: int) -> dict[str, float]:
    """Compute the AUC by video of the mean frame logit.

    Args:
        fabric: Fabric, for the device and the precision of the run.
        task: A `FrameTask`; it is left in training mode.
        pools: Validation clips, one pool per data set.
        size: Crop size of the current stage in pixels.

    Returns:
        Data set -> AUC; data sets of one class are left out.

    Raises:
        FloatingPointError: A logit is not a finite number.
    """
    task.eval()
    aucs: dict[str, float] = {}
    for pool in pools:
        clips = pool.clips()
        clips = clips[:: max(1, len(clips) // VALIDATION_CLIPS)]
        labels, scores = [], []
        for start in range(0, len(clips), 16):
            batch = clips[start : start + 16]
            frames = [_spread_frames(clip) for clip, _ in batch]
            crops = recrop(np.concatenate(frames), margin=1, to_margin=1, size=size)
            with fabric.autocast():
                logits = task(torch.from_numpy(crops).to(fabric.device)).logits
            if not logits.isfinite().all():
                raise FloatingPointError("a logit is not a finite number")
            parts = torch.split(logits.float().cpu(), [len(part) for part in frames])
            scores += [part.mean().item() for part in parts]
            labels += [fake for _, fake in batch]
        if len(set(labels)) == 2:
            aucs[pool.name] = auc(labels, scores)
    task.train()
    return aucs


def _spread_frames(clip: Clip) -> Clip:
    """Return a few frames spread over a clip."""
    chosen = np.unique(np.linspace(0, len(clip) - 1, VALIDATION_FRAMES).round().astype(int))
    return np.asarray(clip[chosen], np.uint8)


def _report_progress(run: _Training, size: int) -> None:
    if time.monotonic() - run.reported <= PROGRESS_S:
        return
    run.reported = time.monotonic()
    names = LOSSES if run.teacher else LOSSES[:2]
    text = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, run.losses, strict=False))
    run.console.log(f"backbone {run.state.step}/{run.total_steps}, {size} px, {text}")
    if run.log:
        values = (*run.losses, run.schedule.get_last_lr()[0])
        for name, value in zip((*LOSSES, "lr"), values, strict=True):
            run.log.add_scalar(f"train/{name}", value, run.state.step)


def _save(run: _Training, *, now: bool) -> None:
    if not now and time.monotonic() - run.saved <= SAVE_S:
        return
    run.saved = time.monotonic()
    if run.fabric.is_global_zero:
        run.state.save()
