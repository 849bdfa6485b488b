"""Settings of a training run, and reading them back from the `config.json` of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from runtime.errors import PathError
from train.errors import ConfigInvalid, TrainError
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig


class RunConfigUnreadable(PathError, TrainError):
    """A file that does not describe a training run."""

    advice = "give the config.json of a checkpoint, or one like it"


@dataclass(frozen=True, kw_only=True)
class FitConfig:
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

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    lr: float = 1e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    region_weight: float = 1.0
    pair_weight: float = 0.0
    distill_weight: float = 0.5
    feature_weight: float = 1.0
    ema_decay: float = 0.998
    validate_every: int = 0
    patience: int = 0
    clip_passes: int = 4
    pseudo_clips: int = 0
    head_steps: int = 400
    head_lr: float = 5e-4
    precision: str = "bf16-mixed"
    compile: bool = False
    workers: int = 0
    devices: int = 1
    nodes: int = 1
    val_groups: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "clip_passes", "head_steps", "nodes"):
            if getattr(self, name) < 1:
                raise ConfigInvalid(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "head_lr", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigInvalid(f"{name} must be above 0, not {getattr(self, name)}")
        for name in (
            "pair_weight",
            "region_weight",
            "feature_weight",
            "weight_decay",
            "validate_every",
            "patience",
            "pseudo_clips",
            "workers",
            "devices",
        ):
            if getattr(self, name) < 0:
                raise ConfigInvalid(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.distill_weight <= 1:
            raise ConfigInvalid(f"distill_weight must be within 0..1, not {self.distill_weight}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigInvalid(f"ema_decay must be within 0..1 and below 1, not {self.ema_decay}")
        # With all devices of a node their number is known only once the run is launched.
        self.sampling.steps(max(1, self.devices) * self.nodes)


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
        fit = dict(stated.get("fit", stated.get("training", {}).get("fit", {})))
        if "sampling" in fit:
            fit["sampling"] = SamplingConfig(**_known(SamplingConfig, fit["sampling"]))
        model = ModelConfig(**_known(ModelConfig, stated.get("model", {})))
        return model, FitConfig(**_known(FitConfig, fit))
    except OSError as error:
        raise RunConfigUnreadable(path, str(error.strerror).lower()) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RunConfigUnreadable(path, str(error)) from error


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{', '.join(sorted(unknown))} is not a setting of {kind.__name__}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
