"""Settings of a training run, and reading them back from the `config.json` of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from runtime.config.reading import Settings, decode
from runtime.errors import ConfigInvalid as SettingsInvalid
from runtime.errors import PathError, os_reason
from train.checked_config import (
    CheckedConfig,
    Count,
    NotNegative,
    Positive,
    PositiveCount,
    Seed,
    Share,
    ShareBelowOne,
)
from train.errors import ConfigInvalid, TrainError
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig

Precision = Literal["bf16-mixed", "bf16-true", "16-mixed", "16-true", "32-true", "64-true"]


class RunConfigUnreadable(PathError, TrainError):
    """A file that does not describe a training run."""

    advice = "give the config.json of a checkpoint, or one like it"


class FitConfig(CheckedConfig, frozen=True, kw_only=True):
    """Settings of a training run.

    Args:
        sampling: Batches that the backbone is trained on.
        lr: Peak learning rate of AdamW for the backbone; after a linear warm-up it follows a cosine to 0.
        warmup_steps: Steps of the warm-up, at least 1.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Norm that gradients are clipped to.
        region_weight: Weight of the loss on the predicted fake region.
        pair_weight: Weight of the ranking loss on each pair of a real crop and its fake. It only
            requires that the fake scores higher, so effects of the camera on both do not matter.
        distill_weight: Share of the teacher's prediction in the target, 0..1; the rest is the label. Used
            only with a teacher.
        feature_weight: Weight of the loss on the teacher's feature maps.
        ema_decay: Decay per step of the moving average of the weights, which the model ends with, 0..1.
        validate_every: Steps between two validations; the weights of the best one are kept. 0 for none.
        patience: Validations without improvement after which the backbone's training stops; 0 for no limit.
        clip_passes: Differently augmented versions of each clip in the head's training set.
        pseudo_clips: Clips made of still images in each of those passes.
        head_steps: Training steps of the head.
        head_lr: Peak learning rate of the head; it follows a cosine to 0.
        precision: Precision of the forward pass, as Lightning Fabric names it.
        compile: Whether to use torch.compile for the backbone.
        workers: Processes that prepare batches; 0 prepares them in the training process.
        devices: Accelerators per node; 0 for all.
        nodes: Number of nodes started by torchrun.
        val_groups: Groups held out of data sets that state no split.
        seed: Seed of every random draw.

    Raises:
        ConfigInvalid: A value is out of its range, values disagree, or the run would train nothing.
    """

    sampling: SamplingConfig = SamplingConfig()
    lr: Positive = 1e-3
    warmup_steps: PositiveCount = 300
    weight_decay: NotNegative = 0.05
    max_grad_norm: Positive = 1.0
    region_weight: NotNegative = 1.0
    pair_weight: NotNegative = 0.0
    distill_weight: Share = 0.5
    feature_weight: NotNegative = 1.0
    ema_decay: ShareBelowOne = 0.998
    validate_every: Count = 0
    patience: Count = 0
    clip_passes: PositiveCount = 4
    pseudo_clips: Count = 0
    head_steps: PositiveCount = 400
    head_lr: Positive = 5e-4
    precision: Precision = "bf16-mixed"
    compile: bool = False
    workers: Count = 0
    devices: Count = 1
    nodes: PositiveCount = 1
    val_groups: tuple[str, ...] = ()
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience and not self.validate_every:
            raise ConfigInvalid("patience counts validations; set validate_every too")
        # With all devices of a node their number is known only once the run is launched.
        self.sampling.steps(max(1, self.devices) * self.nodes)


class _RunFile(CheckedConfig, frozen=True, kw_only=True):
    """File that describes a run; of `training`, only `fit` is read, and nothing of `network`."""

    model: ModelConfig = ModelConfig()
    fit: FitConfig = FitConfig()
    training: dict[str, Any] = {}  # noqa: RUF012  msgspec copies it
    network: str = ""


def read_run(path: Path) -> tuple[ModelConfig, FitConfig]:
    """Read the settings of a run from the `config.json` of its checkpoint, to repeat or change the run.

    Args:
        path: JSON with `model` and `fit`, each optional and with any subset of its values; `fit` may stand
            inside `training`, as `unmask train fit` writes it.

    Returns:
        Sizes of the detector, and settings of the run.

    Raises:
        RunConfigUnreadable: The file cannot be read, has an unknown setting or an impossible value.
    """
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunConfigUnreadable(path, os_reason(error)) from error
    except (ValueError, RecursionError) as error:
        raise RunConfigUnreadable(path, f"not JSON: {error}") from error
    if not isinstance(stated, dict):
        raise RunConfigUnreadable(path, "no JSON object")
    training = stated.get("training")
    if isinstance(training, dict) and "fit" in training:
        stated.setdefault("fit", training["fit"])
    try:
        run = decode(_RunFile, Settings(values=stated, origin=str(path)))
    except SettingsInvalid as error:
        problems = (problem.removeprefix(f"{path}: ") for problem in error.problems)
        raise RunConfigUnreadable(path, "; ".join(problems)) from error
    return run.model, run.fit
