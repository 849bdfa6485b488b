"""Training of a detector, and of a teacher for it to learn from.

fit([Path("clips")], Path("runs/first"), config=FitConfig(val_groups=("035-036",)))

read clips -> backbone on single crops -> head on clips of its features -> checkpoint
-> temporal classifier and calibration on held-out clips
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console

from runtime.files import check_folder_writable
from runtime.model.manifest import BACKBONE_FILE
from train.data.clip_set import index_of, read_clip_set
from train.errors import ConfigInvalid
from train.fitting.backbone import fit_backbone
from train.fitting.calibrate import calibrate_checkpoint
from train.fitting.config import FitConfig
from train.fitting.head import fit_head, initialise_as_mean
from train.models.checkpoint import WEIGHTS_FILE, save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.initial_weights import load_initial
from train.models.teacher import WEIGHTS_FILE as TEACHER_FILE
from train.models.teacher import Teacher, load_pretrained, load_teacher, save_teacher
from train.models.trained_groups import record
from train.models.writing import writing
from train.sampling.batches import draw_batch
from train.sampling.pools import Pool, read_pool
from train.sampling.run_split import check_run, entries_of, set_names, training_groups
from train.scoring.held_out import held_out_sets

STATISTICS_CROPS = 128
"""Number of crops that restore the batch normalisation statistics of a bundle given as `init`."""


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
    """Train a detector, calibrate it and write its checkpoint.

    In a distributed run every process returns the detector; the first one writes and calibrates.

    Args:
        data: Sets of clips or single crops, as `read_clip_set` takes them.
        out: Directory of the checkpoint; an interrupted run is resumed from its last saved state there.
        model_config: Sizes of the detector; its input size must be that of the last stage.
        config: The run.
        init: Initial weights of the backbone, as `load_initial` takes them; None for random ones.
        teacher: Directory that `fit_teacher` wrote; None to train without a teacher.
        console: Console of the progress lines; standard error by default.

    Returns:
        The trained detector, in evaluation mode.

    Raises:
        ClipSetError: A data set cannot be read.
        GroupUnknown: No data set has one of `val_groups`.
        SplitLeak: A group is in two splits, of one data set or of two.
        InitialWeightsError, CheckpointError, BundleError: `init` cannot be used.
        TeacherError: `teacher` cannot be used.
        ModelNotWritten: `out` cannot be written.
        StateUnreadable: The state of an interrupted run in `out` cannot be read.
        ConfigInvalid: The configurations disagree, a data set has no real clip to train on, or `out` belongs
            to another run.
    """
    model_config, config = model_config or ModelConfig(), config or FitConfig()
    if config.sampling.sizes[-1] != model_config.input_size:
        raise ConfigInvalid(
            f"the last stage is at {config.sampling.sizes[-1]} px, the model at {model_config.input_size}"
        )
    loaded_teacher = load_teacher(teacher) if teacher else None
    _check_out(out)
    check_run(data, config.val_groups)
    fabric, console = _launch(config, console)
    if not held_out_sets(data, config.val_groups):
        console.log("no clips are held out to calibrate the model with; see --val-groups")
    pools, validation_pools = _read_pools(data, model_config.crop_margin, config, console)
    model = ResNeXtLSTM(model_config)
    if init is not None:
        load_initial(model.backbone, init, _statistics_crops(pools, model_config.input_size, config))
    facts = {
        **_facts(data, model_config.crop_margin, init),
        "network": "ResNeXt-50",
        "teacher": None if teacher is None else _weights_digest(teacher),
    }
    frame_logit = fit_backbone(
        fabric, model.backbone, pools, validation_pools, config, out, console, facts, loaded_teacher
    )
    initialise_as_mean(model.head, frame_logit)
    fit_head(fabric, model, pools, config, console)
    if fabric.is_global_zero:
        save_checkpoint(out, model.cpu().eval(), _training(data, config, init=init, teacher=teacher))
    fabric.barrier()
    if fabric.is_global_zero:
        calibrate_checkpoint(out, data, val_groups=config.val_groups, seed=config.seed, console=console)
    return model


def fit_teacher(
    data: Sequence[Path],
    out: Path,
    architecture: str,
    *,
    crop_margin: float = ModelConfig.crop_margin,
    config: FitConfig | None = None,
    init: Path | None = None,
    console: Console | None = None,
) -> Teacher:
    """Train a teacher: a pretrained network of another architecture, for `fit` to learn from.

    Args:
        data: As for `fit`.
        out: Directory of the teacher; an interrupted run is resumed from its last saved state there.
        architecture: Name of the network in timm.
        crop_margin: Crop margin of the detector that will learn from it.
        config: The run; its crop sizes must be those of the run that will learn from it.
        init: Pretrained weights, as `load_pretrained` takes them; None for random ones.
        console: Console of the progress lines; standard error by default.

    Returns:
        The teacher.

    Raises:
        ClipSetError: A data set cannot be read.
        GroupUnknown: No data set has one of `val_groups`.
        SplitLeak: A group is in two splits, of one data set or of two.
        TeacherError: There is no such network, or `init` is not of it.
        ModelNotWritten: `out` cannot be written.
        StateUnreadable: The state of an interrupted run in `out` cannot be read.
        ConfigInvalid: The configuration does not suit the data sets, one of them has no real clip to train
            on, or `out` belongs to another run.
    """
    config = config or FitConfig()
    _check_out(out)
    check_run(data, config.val_groups)
    fabric, console = _launch(config, console)
    teacher = Teacher(architecture)
    if init is not None:
        load_pretrained(teacher, init)
    pools, validation_pools = _read_pools(data, crop_margin, config, console)
    facts = {**_facts(data, crop_margin, init), "network": architecture}
    logit = fit_backbone(fabric, teacher, pools, validation_pools, config, out, console, facts)
    if fabric.is_global_zero:
        save_teacher(out, teacher, logit, _training(data, config, init=init))
    fabric.barrier()
    return teacher


def _check_out(out: Path) -> None:
    """Raise an error if nothing can be written to `out`, before the clips are read."""
    with writing(out):
        check_folder_writable(out)


def _launch(config: FitConfig, console: Console | None) -> tuple[Fabric, Console]:
    fabric = Fabric(
        accelerator="auto",
        devices=config.devices or "auto",
        num_nodes=config.nodes,
        precision=config.precision,
    )
    fabric.launch()
    torch.manual_seed(config.seed)
    return fabric, console or Console(stderr=True, quiet=not fabric.is_global_zero)


def _statistics_crops(pools: Sequence[Pool], size: int, config: FitConfig) -> torch.Tensor:
    return draw_batch(
        pools,
        STATISTICS_CROPS,
        size,
        np.random.default_rng(config.seed),
        strength=1.0,
        synthetic_share=config.sampling.synthetic_share[1],
    ).crops


def _facts(data: Sequence[Path], crop_margin: float, init: Path | None) -> dict[str, Any]:
    """Return what the weights of a backbone depend on besides its `FitConfig`, whatever files are called."""
    return {
        "data": [[_digest(index_of(folder)), read_clip_set(folder).margin] for folder in data],
        "crop_margin": crop_margin,
        "initial weights": None if init is None else _weights_digest(init),
    }


def _weights_digest(path: Path) -> str:
    """Return the SHA-256 of a file of weights, or of that of a checkpoint, bundle or teacher."""
    files = (path, *(path / name for name in (WEIGHTS_FILE, BACKBONE_FILE, TEACHER_FILE)))
    return _digest(next(file for file in files if file.is_file()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _training(data: Sequence[Path], config: FitConfig, **origins: Path | None) -> dict[str, Any]:
    """Return how a network was trained, as JSON values."""
    return {
        "fit": msgspec.to_builtins(config),
        **{name: None if path is None else path.resolve().name for name, path in origins.items()},
        "sets": set_names(data),
        "torch": torch.__version__,
        **record(training_groups(data, config.val_groups), list(origins.values())),
    }


def _read_pools(
    data: Sequence[Path], margin: float, config: FitConfig, console: Console
) -> tuple[list[Pool], list[Pool]]:
    """Read the training clips and, if the run validates, the validation clips of every data set."""
    for name, values in (
        ("set_weights", config.sampling.set_weights),
        ("min_synthetic_share", config.sampling.min_synthetic_share),
    ):
        if values and len(values) != len(data):
            raise ConfigInvalid(f"{name} has {len(values)} values for {len(data)} sets")
    if config.validate_every:
        _check_validation(data, config.val_groups)
    pools, validation_pools = [], []
    for folder in data:
        pool = read_pool(folder, config.val_groups, margin)
        real = sum(map(len, pool.real.values()))
        console.log(f"{pool.name}: {real} real, {sum(map(len, pool.fake.values()))} fake clips")
        regions = [
            original.region is not None
            for clips in pool.original_frames.values()
            for clip in clips
            for original in clip
        ]
        if regions:
            console.log(f"{pool.name}: the fake region is known in {np.mean(regions):.0%} of the frames")
        if not real:
            raise ConfigInvalid(f"{folder} has no real clip to train on")
        pools.append(pool)
        if config.validate_every:
            validation_pools.append(read_pool(folder, config.val_groups, margin, validation=True))
    return pools, validation_pools


def _check_validation(data: Sequence[Path], val_groups: Sequence[str]) -> None:
    """Raise an error unless a data set has validation clips of both classes, to compute an AUC from."""
    for clip_set in map(read_clip_set, data):
        if len({entry.fake for entry in entries_of(clip_set, "val", val_groups)}) == 2:
            return
    raise ConfigInvalid(
        "validate_every needs held-out real and fake clips of one data set; "
        "hold some out with --val-groups, or set validate_every and patience to 0"
    )
