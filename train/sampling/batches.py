"""Batches of pairs of a real crop and a fake of the same face, under the same augmentation.

    batches = Batches([pool], SamplingConfig(), seed=0)
    crops, labels, regions, known = batches[0]

A fake is either a dataset fake, paired with the frame it was made from, or a synthetic fake, made here from
the real crop. The two crops of a pair differ only in the faked region, which is known for most pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from streams.synthesis.fakes import (
    EXPRESSION_REGIONS,
    blend_mask,
    make_fake,
    sample_fake_parameters,
    self_blend,
)
from train.sampling.augmentation import Augmentation, draw_augmentation
from train.sampling.config import SamplingConfig
from train.sampling.pairing import OriginalFrame, grey_thumbnail
from train.sampling.pools import POOL_PX, Crop, Pool

PARTIAL_SHARE = 0.75
"""Share of the registered dataset fakes of which only a part is blended into the original."""
SWAP_SHARE, REENACTMENT_SHARE = 0.3, 0.2
"""Shares of face swaps and of reenactments (moved mouth or brows) among the synthetic fakes."""
DONORS, DONOR_PX = 6, 12
"""Number of candidate donors for a face swap, and the size in pixels at which they are compared."""
MIN_REGION_SHARE = 0.03
"""Smallest share of the crop that a partial fake may cover."""

Pair = tuple[Crop, Crop, NDArray[np.float32]]
"""Real crop, fake crop and changed region of the fake crop."""


class Batch(NamedTuple):
    """Crops in pairs of a real one and its fake.

    Attributes:
        crops: RGB uint8 `(N, size, size, 3)`.
        labels: float32 `(N,)`, 1 for fake.
        regions: Changed regions, float32 `(N, size, size)`, 0..1.
        known: Whether the region is known, bool `(N,)`.
    """

    crops: Tensor
    labels: Tensor
    regions: Tensor
    known: Tensor


class Batches(Dataset[Batch]):
    """Batches by training step. A step always has the same batch, also in a resumed run.

    Args:
        pools: Training splits of the data sets.
        config: Settings of the batches.
        seed: Seed of the run.
        rank: Number of this process; each process has its own batches.
        processes: Number of processes.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        config: SamplingConfig,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._pools = pools
        self._config = config
        self._seed = seed
        self._rank = rank
        self._sizes = config.steps(processes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, step: int) -> Batch:
        config, size = self._config, self._sizes[step]
        progress = step / len(self._sizes)
        strong, subtle = config.strength
        first, last = config.synthetic_share
        return draw_batch(
            self._pools,
            config.batch_size,
            size,
            np.random.default_rng((self._seed, self._rank, step)),
            strength=strong + (subtle - strong) * progress,
            synthetic_share=first + (last - first) * min(1.0, 3 * progress),
            zoom=config.max_zoom * config.sizes[-1] / size,
            set_weights=config.set_weights,
            min_synthetic_share=config.min_synthetic_share,
        )


def draw_batch(
    pools: Sequence[Pool],
    count: int,
    size: int,
    rng: np.random.Generator,
    *,
    strength: float,
    synthetic_share: float,
    zoom: float = 1.0,
    set_weights: Sequence[float] = (),
    min_synthetic_share: Sequence[float] = (),
) -> Batch:
    """Draw a batch of pairs.

    Args:
        pools: Training splits of the data sets.
        count: Number of crops, even.
        size: Side of the crops in pixels.
        rng: Random generator.
        strength: Strength of the synthetic fakes.
        synthetic_share: Share of synthetic fakes among the fake crops, 0..1.
        zoom: Largest enlargement, as for `draw_augmentation`.
        set_weights: Relative share of the pairs from each data set; empty for equal shares.
        min_synthetic_share: Lower bound of `synthetic_share` for each data set; empty for none.

    Returns:
        The batch; real and fake crops alternate.
    """
    crops = np.empty((count, size, size, 3), np.uint8)
    regions = np.zeros((count, size, size), np.float32)
    known = np.ones(count, np.bool_)
    probabilities = np.asarray(set_weights or [1.0] * len(pools))
    probabilities = probabilities / probabilities.sum()
    for index in range(0, count, 2):
        number = int(rng.choice(len(pools), p=probabilities))
        pool = pools[number]
        share = max(synthetic_share, min_synthetic_share[number] if min_synthetic_share else 0.0)
        augmentation = draw_augmentation(POOL_PX, size, rng, zoom=zoom)
        if pool.fake and rng.random() >= share:
            real, fake, original = pool.dataset_pair(rng)
            known[index + 1] = original is not None and original.region is not None
            pair = _dataset_pair(real, fake, original, augmentation, rng, pool.margin)
        else:
            pair = _synthetic_pair(pool, strength, augmentation, rng)
        crops[index], crops[index + 1] = augmentation.adjust(pair[0]), augmentation.adjust(pair[1])
        regions[index + 1] = pair[2]
    labels = torch.arange(count).remainder(2).float()
    return Batch(torch.from_numpy(crops), labels, torch.from_numpy(regions), torch.from_numpy(known))


def _synthetic_pair(
    pool: Pool, strength: float, augmentation: Augmentation, rng: np.random.Generator
) -> Pair:
    """Draw a real frame and fake it as a face swap, as a reenactment, or by blending it with itself."""
    real, margin = pool.real_frame(rng), pool.margin
    kind = rng.random()
    if kind < SWAP_SHARE:
        donor = _most_similar(real, [pool.real_frame(rng) for _ in range(DONORS)])
        parameters = sample_fake_parameters(rng, strength=strength, margin=margin)
        fake, region = make_fake(real, parameters, donor=donor)
    elif kind < SWAP_SHARE + REENACTMENT_SHARE:
        part = EXPRESSION_REGIONS[int(rng.integers(len(EXPRESSION_REGIONS)))]
        parameters = sample_fake_parameters(rng, strength=strength, region=part, margin=margin)
        fake, region = make_fake(real, parameters)
    else:
        fake, region = self_blend(real, rng, strength=strength, margin=margin)
    return augmentation.warp(real), augmentation.warp(fake), augmentation.warp_region(region)


def _most_similar(face: Crop, donors: Sequence[Crop]) -> Crop:
    """Return the donor whose pose and features match the face best."""

    def thumbnail(frame: Crop) -> NDArray[np.float32]:
        small = grey_thumbnail(frame, DONOR_PX).astype(np.float32)
        return np.asarray((small - small.mean()) / (small.std() + 1), np.float32)

    own = thumbnail(face)
    return max(donors, key=lambda donor: float((thumbnail(donor) * own).mean()))


def _dataset_pair(
    real: Crop,
    fake: Crop,
    original: OriginalFrame | None,
    augmentation: Augmentation,
    rng: np.random.Generator,
    margin: float,
) -> Pair:
    """Align a dataset fake and its original; for some pairs, blend only a part of the fake into it."""
    if original is None or original.region is None or original.transform is None:
        unknown = np.zeros((augmentation.size, augmentation.size), np.float32)
        return augmentation.warp(real), augmentation.warp(fake), unknown
    onto_real = original.transform * np.array([1, 1, POOL_PX], np.float32)
    region = np.asarray(cv2.resize(original.region, (POOL_PX, POOL_PX)), np.float32) / np.float32(255)
    # Alignment replicates a border on the frame that it moves. Either frame is moved, at random, so that the
    # border is no hint to the label.
    if rng.random() < 0.5:
        onto_fake = np.asarray(cv2.invertAffineTransform(onto_real), np.float32)
        real, fake = augmentation.warp(real, onto_fake), augmentation.warp(fake)
        region = augmentation.warp_region(region)
    else:
        real, fake = augmentation.warp(real), augmentation.warp(fake, onto_real)
        region = augmentation.warp_region(region, onto_real)
    if rng.random() < PARTIAL_SHARE:
        mask = blend_mask(augmentation.size, augmentation.size, sample_fake_parameters(rng, margin=margin))
        if (mask * region).mean() >= MIN_REGION_SHARE:
            blended = real + mask[..., None] * (fake.astype(np.float32) - real)
            fake, region = np.clip(blended + 0.5, 0, 255).astype(np.uint8), mask * region
    return real, fake, region
