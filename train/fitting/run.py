"""Trains the detector in two stages: the trunk on single crops, then the LSTM on clips of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console

from train.fitting.backbone import fit_backbone
from train.fitting.config import FitConfig
from train.fitting.head import begin_at_the_mean, fit_head
from train.models.checkpoint import save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.initial_weights import load_initial
from train.models.teacher import Teacher, load_pretrained, load_teacher, save_teacher
from train.sampling.batches import draw_batch
from train.sampling.pools import Pool, read_pool

STATISTICS = 128
"""Crops that a bundle's statistics are taken from."""


def fit(
    data: Sequence[Path],
    out: Path,
    *,
    model_config: ModelConfig | None = None,
    config: FitConfig | None = None,
    init: Path | None = None,
    teacher: Path | None = None,
    console: Console | None = None,
) -> ResNeXtLSTM:
    """Train a detector and write its checkpoint.

    Args:
        data: Sets of clips or crops, as `read_clip_set` takes them.
        out: The checkpoint's directory; a run that was cut there goes on from what it last saved.
        model_config: The network's sizes; its input size must be the last stage's.
        config: The run.
        init: Weights to start the trunk from, as `load_initial` takes them; None for random ones.
        teacher: What `fit_teacher` wrote, for the trunk to learn from; None for none.
        console: Where progress goes; standard error by default.

    Returns:
        The trained detector, in evaluation mode.

    Raises:
        ClipSetError: A set cannot be read.
        InitialWeightsError, CheckpointError, BundleError: `init` cannot be used.
        TeacherError: `teacher` cannot be used.
        ValueError: The configurations disagree, or a set has no real clip to train on.
    """
    model_config, config = model_config or ModelConfig(), config or FitConfig()
    if config.sampling.sizes[-1] != model_config.input_size:
        raise ValueError(
            f"the last stage is at {config.sampling.sizes[-1]} px, the model at {model_config.input_size}"
        )
    taught_by = load_teacher(teacher) if teacher else None
    fabric, console = _launched(config, console)
    pools, checks = _read(data, model_config.crop_margin, config, console)
    model = ResNeXtLSTM(model_config)
    if init is not None:
        drawn = np.random.default_rng(config.seed)
        some = draw_batch(
            pools,
            STATISTICS,
            model_config.input_size,
            drawn,
            strength=1.0,
            synthetic_share=config.sampling.synthetic_share[1],
        )
        load_initial(model.backbone, init, some[0])
    frame_logit = fit_backbone(fabric, model.backbone, pools, checks, config, out, console, taught_by)
    begin_at_the_mean(model.head, frame_logit)
    fit_head(fabric, model, pools, config, console)
    if fabric.is_global_zero:
        taught = None if teacher is None else teacher.resolve().name
        save_checkpoint(out, model.cpu().eval(), {**_stated(data, config, init), "teacher": taught})
    fabric.barrier()
    return model


def fit_teacher(
    data: Sequence[Path],
    out: Path,
    trunk: str,
    *,
    crop_margin: float = ModelConfig.crop_margin,
    config: FitConfig | None = None,
    init: Path | None = None,
    console: Console | None = None,
) -> Teacher:
    """Train a network of another form, for `fit` to learn from.

    Args:
        data: As for `fit`.
        out: The teacher's directory; a run that was cut there goes on from what it last saved.
        trunk: The network, as timm names it.
        crop_margin: Of the detector that is to learn from it.
        config: The run; its sizes must be those of the run that learns from it.
        init: The network's pretrained weights, as `load_pretrained` takes them; None for random ones.
        console: Where progress goes; standard error by default.

    Returns:
        The teacher.

    Raises:
        ClipSetError: A set cannot be read.
        TeacherError: There is no such network, or `init` is not of it.
        ValueError: The configuration does not fit the sets, or a set has no real clip to train on.
    """
    config = config or FitConfig()
    fabric, console = _launched(config, console)
    teacher = Teacher(trunk)
    if init is not None:
        load_pretrained(teacher, init)
    pools, checks = _read(data, crop_margin, config, console)
    logit = fit_backbone(fabric, teacher, pools, checks, config, out, console)
    if fabric.is_global_zero:
        save_teacher(out, teacher, logit, _stated(data, config, init))
    fabric.barrier()
    return teacher


def _launched(config: FitConfig, console: Console | None) -> tuple[Fabric, Console]:
    fabric = Fabric(
        accelerator="auto",
        devices=config.devices or "auto",
        num_nodes=config.nodes,
        precision=config.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    torch.manual_seed(config.seed)
    return fabric, console or Console(stderr=True, quiet=not fabric.is_global_zero)


def _stated(data: Sequence[Path], config: FitConfig, init: Path | None) -> dict[str, Any]:
    """Say how a network was trained, as JSON values."""
    return {
        "fit": asdict(config),
        "init": None if init is None else init.resolve().name,
        "sets": [folder.name for folder in data],
        "torch": torch.__version__,
    }


def _read(
    data: Sequence[Path], margin: float, config: FitConfig, console: Console
) -> tuple[list[Pool], list[Pool]]:
    """Read the sides to train on and, if the run looks at them, the ones kept out."""
    for name, values in (
        ("set_weights", config.sampling.set_weights),
        ("min_synthetic_share", config.sampling.min_synthetic_share),
    ):
        if values and len(values) != len(data):
            raise ValueError(f"{name} has {len(values)} values for {len(data)} sets")
    pools = [read_pool(folder, config.val_groups, margin) for folder in data]
    checks = []
    for folder, pool in zip(data, pools, strict=True):
        reals = sum(map(len, pool.real.values()))
        console.log(f"{folder.name}: {reals} real, {sum(map(len, pool.fake.values()))} forged clips")
        regions = [o.region is not None for found in pool.origins.values() for clip in found for o in clip]
        if regions:
            console.log(f"{folder.name}: the forged region is known of {np.mean(regions):.0%} of the frames")
        if not reals:
            raise ValueError(f"{folder} has no real clip to train on")
        if config.validate_every:
            checks.append(read_pool(folder, config.val_groups, margin, validation=True))
    return pools, checks
