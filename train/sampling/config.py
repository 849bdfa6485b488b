"""Settings of the batches that the backbone is trained on."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from train.checked_config import CheckedConfig, CropSize, NotNegative, Positive, PositiveCount, Share
from train.errors import ConfigInvalid


class SamplingConfig(CheckedConfig, frozen=True, kw_only=True):
    """Settings of the batches that the backbone is trained on.

    Args:
        sizes: Crop size in pixels of each training stage, in order; the last one is the detector's. In
            earlier stages a crop shows the whole face, or a part of it at up to the detector's scale.
        crops: Number of crops of each stage, over all processes.
        batch_size: Crops per step and process.
        max_zoom: Largest random enlargement of a crop in the last stage; 1 for none.
        set_weights: Relative share of the crops drawn from each data set, in their order; empty for equal
            shares. Give a set of few people a small share, or the model memorises them.
        synthetic_share: Share of the fake crops that are synthetic fakes, 0..1, at the first step and from
            one third of the run on.
        min_synthetic_share: Lower bound of `synthetic_share` for each data set, in their order; empty for
            none. Raise it for a set of few people, whose fakes the model would recognise by the face.
        strength: Strength of the synthetic fakes at the first and at the last step.

    Raises:
        ConfigInvalid: A value is out of its range, or a stage has fewer crops than one batch.
    """

    sizes: tuple[CropSize, ...] = (96, 160)
    crops: tuple[PositiveCount, ...] = (100_000, 100_000)
    batch_size: Annotated[int, Meta(ge=8, le=65536, multiple_of=4)] = 32
    max_zoom: Annotated[float, Meta(ge=1, le=100)] = 1.0
    set_weights: tuple[Positive, ...] = ()
    synthetic_share: tuple[Share, Share] = (1.0, 0.35)
    min_synthetic_share: tuple[Share, ...] = ()
    strength: tuple[NotNegative, NotNegative] = (2.5, 0.8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or len(self.sizes) != len(self.crops):
            raise ConfigInvalid("sizes and crops must be given for the same number of stages")
        self.steps()

    def steps(self, processes: int = 1) -> list[int]:
        """Return the crop size of every training step, for each of a number of processes.

        Raises:
            ConfigInvalid: A stage has fewer crops than one batch of every process.
        """
        together = self.batch_size * processes
        sizes = []
        for size, crops in zip(self.sizes, self.crops, strict=True):
            if crops < together:
                raise ConfigInvalid(
                    f"the stage of {size} px has {crops} crops and would train nothing; use at least "
                    f"{together} (batch_size {self.batch_size} x {processes} processes)"
                )
            sizes += [size] * (crops // together)
        return sizes
