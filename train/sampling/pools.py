"""Holds the training crops in memory and draws batches from them.

A batch comes in pairs of a real crop and a forged one that is as alike as there is, under the same variation:
the frame that a found forgery was made of, or the one that we made it of. What is left to tell them apart is
the forgery, and where it is is known of most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
from train.data.clip_set import Entry, load_clips, read_clip_set
from train.data.crops import recrop
from train.sampling.augmentation import Variation, draw_variation
from train.sampling.config import SamplingConfig
from train.sampling.pairing import Origin, find_origins, grey

POOL_PX = 192
"""Side at which crops are held and forged: more than any input size, less to hold than the files' 224."""
PARTIAL = 0.75
"""Share of the registered forgeries of which only a part is put into the original."""
SWAPPED, REENACTED = 0.3, 0.2
"""Shares of the made forgeries that take another's face, and that move the mouth or the brows."""
DONORS, DONOR_PX = 6, 12
"""How many faces a donor is chosen from, and the side at which they are compared."""
MIN_REGION = 0.03
"""Share of the crop that a partial forgery must cover."""

Clip = NDArray[np.uint8]
Frame = NDArray[np.uint8]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Pool:
    """Holds the clips of one side of a set, uint8 RGB (T, 192, 192, 3) each, and what they are.

    Attributes:
        name: Of the set.
        real: Group -> its real clips.
        fake: Method -> its forged clips, each with its group.
    """

    name: str
    real: dict[str, tuple[Clip, ...]]
    fake: dict[str, tuple[tuple[str, Clip], ...]]

    def real_frame(self, rng: np.random.Generator) -> Frame:
        """Draw a frame of a real clip."""
        clips = self.real[self.groups[int(rng.integers(len(self.groups)))]]
        return _frame(clips[int(rng.integers(len(clips)))], rng)

    def dataset_pair(self, rng: np.random.Generator) -> tuple[Frame, Frame, Origin | None]:
        """Draw a forged frame, rare methods more often than they are there, and the real one beside it.

        Returns:
            The real frame, the forged one, and its origin; without an original in the group any real frame,
            and no origin.
        """
        methods = sorted(self.fake)
        weight = np.sqrt([len(self.fake[method]) for method in methods])
        method = methods[int(rng.choice(len(methods), p=weight / weight.sum()))]
        number = int(rng.integers(len(self.fake[method])))
        group, clip = self.fake[method][number]
        index = int(rng.integers(len(clip)))
        if group not in self.real:
            return self.real_frame(rng), clip[index], None
        origin = self.origins[method][number][index]
        return self.real[group][origin.clip][origin.frame], clip[index], origin

    @cached_property
    def origins(self) -> dict[str, list[list[Origin]]]:
        """What every forged frame was made of, by method and number of the clip."""
        return {
            method: [
                find_origins(clip, self.real[group]) if group in self.real else [] for group, clip in clips
            ]
            for method, clips in self.fake.items()
        }

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups that have a real clip."""
        return tuple(self.real)

    def clips(self) -> list[tuple[Clip, bool]]:
        """Give all clips, each with whether it is forged."""
        real = [(clip, False) for clips in self.real.values() for clip in clips]
        return real + [(clip, True) for clips in self.fake.values() for _, clip in clips]


def in_training(entry: Entry, stated: bool, val_groups: Sequence[str]) -> bool:
    """Tell whether an entry is for training: by the split the set states, by its group otherwise."""
    return entry.split == "train" if stated else entry.group not in val_groups


def read_pool(folder: Path, val_groups: Sequence[str], margin: float, *, validation: bool = False) -> Pool:
    """Read one side of a set into memory.

    Args:
        folder: A set of clips or crops.
        val_groups: Groups of the validation side where the set states no split.
        margin: Crop margin to bring the crops to.
        validation: The validation side instead of the one for training.

    Returns:
        The clips.

    Raises:
        ClipSetError: The set cannot be read.
    """
    clip_set = read_clip_set(folder)
    stated = bool(clip_set.splits())
    if validation and stated:
        entries = [entry for entry in clip_set.entries if entry.split == "val"]
    else:
        entries = [e for e in clip_set.entries if in_training(e, stated, val_groups) is not validation]
    real: dict[str, list[Clip]] = {}
    fake: dict[str, list[tuple[str, Clip]]] = {}
    for clip in load_clips(clip_set, entries):
        frames = recrop(clip.frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
        if clip.fake:
            fake.setdefault(clip.method, []).append((clip.group, frames))
        else:
            real.setdefault(clip.group, []).append(frames)
    return Pool(
        folder.name,
        {group: tuple(clips) for group, clips in real.items()},
        {method: tuple(clips) for method, clips in fake.items()},
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
    """Draw a batch of pairs of a real and a forged crop.

    Args:
        pools: The training sets.
        count: Crops in the batch, even.
        size: Side of the crops in pixels.
        rng: Where everything is drawn from.
        strength: Of the made forgeries.
        synthetic_share: Share of synthetic fakes among the fake crops, 0..1.
        zoom: As for `draw_variation`.
        set_weights: Share of the pairs drawn from each data set; empty for equal shares.
        min_synthetic_share: Lower bound of `synthetic_share` for each data set; empty for none.

    Returns:
        Crops uint8 (N, size, size, 3), labels float32 (N,) with 1 for fake, blended regions float32
        (N, size, size), and whether the region is known, bool (N,).
    """
    crops = np.empty((count, size, size, 3), np.uint8)
    regions = np.zeros((count, size, size), np.float32)
    known = np.ones(count, np.bool_)
    likely = np.asarray(set_weights or [1.0] * len(pools))
    likely = likely / likely.sum()
    for index in range(0, count, 2):
        number = int(rng.choice(len(pools), p=likely))
        pool = pools[number]
        share = max(synthetic_share, min_synthetic_share[number] if min_synthetic_share else 0.0)
        variation = draw_variation(POOL_PX, size, rng, zoom=zoom)
        if pool.fake and rng.random() >= share:
            real, fake, origin = pool.dataset_pair(rng)
            known[index + 1] = origin is not None and origin.region is not None
            pair = _found(real, fake, origin, variation, rng)
        else:
            real = pool.real_frame(rng)
            fake, region = _made(real, pool, strength, rng)
            pair = variation.place(real), variation.place(fake), variation.move(region)
        crops[index], crops[index + 1] = variation.tone(pair[0]), variation.tone(pair[1])
        regions[index + 1] = pair[2]
    labels = torch.arange(count).remainder(2).float()
    return torch.from_numpy(crops), labels, torch.from_numpy(regions), torch.from_numpy(known)


def _frame(clip: Clip, rng: np.random.Generator) -> Frame:
    frame: Frame = clip[int(rng.integers(len(clip)))]
    return frame


def _made(
    real: Frame, pool: Pool, strength: float, rng: np.random.Generator
) -> tuple[Frame, NDArray[np.float32]]:
    """Forge a face as a swap does, as a reenactment does, or by blending it with itself."""
    kind = rng.random()
    if kind < SWAPPED:
        donor = _alike(real, [pool.real_frame(rng) for _ in range(DONORS)])
        return make_fake(real, sample_fake_parameters(rng, strength=strength), donor=donor)
    if kind < SWAPPED + REENACTED:
        region = EXPRESSION_REGIONS[int(rng.integers(len(EXPRESSION_REGIONS)))]
        return make_fake(real, sample_fake_parameters(rng, strength=strength, region=region))
    return self_blend(real, rng, strength=strength)


def _alike(face: Frame, donors: Sequence[Frame]) -> Frame:
    """Choose the donor whose features lie most as the face's do."""

    def thumb(frame: Frame) -> NDArray[np.float32]:
        small = grey(frame, DONOR_PX).astype(np.float32)
        return np.asarray((small - small.mean()) / (small.std() + 1), np.float32)

    own = thumb(face)
    return max(donors, key=lambda donor: float((thumb(donor) * own).mean()))


def _found(
    real: Frame, fake: Frame, origin: Origin | None, variation: Variation, rng: np.random.Generator
) -> tuple[Frame, Frame, NDArray[np.float32]]:
    """Place a found forgery and its original upon each other; of some, put only a part into the original."""
    if origin is None or origin.region is None or origin.turn is None:
        nothing = np.zeros((variation.size, variation.size), np.float32)
        return variation.place(real), variation.place(fake), nothing
    onto_real = origin.turn * np.array([1, 1, POOL_PX], np.float32)
    seen = np.asarray(cv2.resize(origin.region, (POOL_PX, POOL_PX)), np.float32) / np.float32(255)
    # Either may be the one that is moved: the border that this invents must not tell them apart.
    if rng.random() < 0.5:
        onto_fake = np.asarray(cv2.invertAffineTransform(onto_real), np.float32)
        real, fake, region = variation.place(real, onto_fake), variation.place(fake), variation.move(seen)
    else:
        real, fake = variation.place(real), variation.place(fake, onto_real)
        region = variation.move(seen, onto_real)
    if rng.random() < PARTIAL:
        mask = blend_mask(variation.size, variation.size, sample_fake_parameters(rng))
        if (mask * region).mean() >= MIN_REGION:
            blended = real + mask[..., None] * (fake.astype(np.float32) - real)
            fake, region = np.clip(blended + 0.5, 0, 255).astype(np.uint8), mask * region
    return real, fake, region


class Batches(Dataset[Batch]):
    """Gives the batch of every step of the trunk; the same one however the run was cut or shared out.

    Args:
        pools: The training sets.
        config: Settings of the batches.
        seed: Seed of the run.
        rank: Number of this process.
        processes: How many there are.
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
