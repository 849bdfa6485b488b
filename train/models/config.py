"""States everything that a training run depends on besides its data."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from train.models.detector import ModelConfig


class RunUnreadable(ValueError):
    """Says that a file does not describe a run.

    Args:
        path: The file.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give the config.json of a checkpoint, or one like it"


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Holds the hyper-parameters of a run.

    Args:
        sizes: Input sizes of the stages of the trunk, in order; the last is the detector's. In the earlier
            ones a crop shows anything from the whole face to a part of it at the detector's scale.
        crops: How many crops each of those stages sees.
        batch: Crops a step and process.
        lr: Peak learning rate of AdamW; cosine to nothing over the whole run after a linear warm-up.
        warmup: Steps of the warm-up.
        weight_decay: Of AdamW.
        clip_norm: Largest norm of the gradient.
        zoom: In the last stage, too, crops are enlarged up to so many times.
        shares: Share of the crops that each set gives, in the order of the sets; empty for the same of all.
            A set of few people is learned by heart.
        made: Share of the forged crops that are made of real ones, at first and from a third of the run on.
        least_made: The least such share in each set, in the order of the sets; empty for none. The found
            forgeries of few people teach who they are.
        strength: Strength of the made forgeries at the start and at the end.
        mask_weight: Weight of the region's loss.
        pair_weight: Weight of the ranking loss on each pair of a real crop and its forgery, which asks only
            that the forgery scores higher and so does not depend on what the camera adds to both.
        heed: Share of the teacher's word beside the label's, 0..1, where there is a teacher.
        hint_weight: Weight of the loss of the teacher's maps.
        ema_decay: Of the moving average of the trunk's weights, which is what is kept.
        check_every: Steps between two looks at the validation side, of which the best is kept; 0 for none.
        patience: Looks without a better one that end the trunk's training; 0 to go on.
        clip_passes: How often each clip is varied for the head's training set.
        stills: How many stills are made into clips for each of those passes.
        head_steps: Steps of the head.
        head_lr: Its peak learning rate.
        precision: Of the forward pass, as Lightning Fabric names it.
        compile: Whether the trunk goes through torch.compile.
        workers: Processes that make the batches; 0 for none beside the training itself.
        devices: Accelerators of each node; 0 for all there are.
        nodes: Nodes that torchrun started.
        val_groups: Groups kept out of sets that state no split.
        seed: Of every draw.

    Raises:
        ValueError: Values disagree or are out of their range.
    """

    sizes: tuple[int, ...] = (96, 160)
    crops: tuple[int, ...] = (100_000, 100_000)
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    zoom: float = 1.0
    shares: tuple[float, ...] = ()
    made: tuple[float, float] = (1.0, 0.35)
    min_synthetic: tuple[float, ...] = ()
    strength: tuple[float, float] = (2.5, 0.8)
    region_weight: float = 1.0
    pair_weight: float = 0.0
    distill_weight: float = 0.5
    hint_weight: float = 1.0
    ema_decay: float = 0.998
    check_every: int = 0
    patience: int = 0
    clip_passes: int = 4
    stills: int = 0
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
        if not self.sizes or len(self.sizes) != len(self.crops):
            raise ValueError("sizes and crops must be given for the same number of stages")
        if self.batch < 8 or self.batch % 4:
            raise ValueError(f"batch must be a multiple of 4 and at least 8, not {self.batch}")
        if any(share <= 0 for share in self.shares):
            raise ValueError(f"shares must be above 0, not {self.shares}")
        if not all(0 <= share <= 1 for share in (*self.made, *self.min_synthetic)):
            raise ValueError(
                f"made and least_made must be within 0..1, not {self.made} and {self.min_synthetic}"
            )
        if self.pair_weight < 0:
            raise ValueError(f"pair_weight must not be below 0, but is {self.pair_weight}")
        if not 0 <= self.distill_weight <= 1:
            raise ValueError(f"heed must be within 0..1, not {self.distill_weight}")

    def steps(self, processes: int = 1) -> list[int]:
        """Give the input size of every step of the trunk."""
        return [
            size
            for size, crops in zip(self.sizes, self.crops, strict=True)
            for _ in range(crops // (self.batch * processes))
        ]


def read_run(path: Path) -> tuple[ModelConfig, FitConfig]:
    """Read what a run is from the file that a checkpoint keeps, to repeat or change it.

    Args:
        path: JSON with `model` and `fit`, each of which may be left out or give some values only; `fit` may
            stand inside `training`, as `unmask train fit` writes it.

    Returns:
        The sizes of the network, and the run.

    Raises:
        RunUnreadable: It cannot be read, names something unknown or gives an impossible value.
    """
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        fit = stated.get("fit", stated.get("training", {}).get("fit", {}))
        model = ModelConfig(**_known(ModelConfig, stated.get("model", {})))
        return model, FitConfig(**_known(FitConfig, fit))
    except OSError as error:
        raise RunUnreadable(path, str(error.strerror).lower()) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RunUnreadable(path, str(error)) from error


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{', '.join(sorted(unknown))} is no setting of {kind.__name__}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
