"""Holds the training crops in memory and draws batches from them.

A batch comes in pairs of a real crop and a forged one that is as alike as there is: of the same group where
the forgery was found, of the same frame under the same variation where it was made. What is left to tell
them apart is the forgery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from streams.forge import forge, sample_forgery
from train.augment import draw_variation
from train.clipset import Entry, load_clips, read_clip_set
from train.config import FitConfig
from train.scores import recrop

POOL_PX = 144
"""Side at which crops are held and forged: more than any input size, less to hold than the files' 224."""

Clip = NDArray[np.uint8]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Pool:
    """Holds the clips of one side of a set, uint8 RGB (T, 144, 144, 3) each, and what they are.

    Attributes:
        name: Of the set.
        real: Group -> its real clips.
        fake: Method -> its forged clips, each with its group.
    """

    name: str
    real: dict[str, tuple[Clip, ...]]
    fake: dict[str, tuple[tuple[str, Clip], ...]]

    def real_of(self, group: str | None, rng: np.random.Generator) -> Clip:
        """Draw a real clip, of a group if it has one."""
        clips = self.real.get(group) if group is not None else None
        clips = clips or self.real[self.groups[int(rng.integers(len(self.groups)))]]
        return clips[int(rng.integers(len(clips)))]

    def fake_of(self, rng: np.random.Generator) -> tuple[str, Clip]:
        """Draw a forged clip and its group; each method is as likely."""
        methods = sorted(self.fake)
        clips = self.fake[methods[int(rng.integers(len(methods)))]]
        return clips[int(rng.integers(len(clips)))]

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
    made: float,
    zoom: float = 1.0,
) -> Batch:
    """Draw a batch of pairs of a real and a forged crop.

    Args:
        pools: The training sets, each as likely.
        count: Crops in the batch, even.
        size: Side of the crops in pixels.
        rng: Where everything is drawn from.
        strength: Of the made forgeries.
        made: Their share of the forged crops.
        zoom: As for `draw_variation`.

    Returns:
        Crops uint8 (N, size, size, 3), labels float32 (N,) with 1 for fake, blended regions float32
        (N, size, size), and whether the region is known, bool (N,).
    """
    crops = np.empty((count, size, size, 3), np.uint8)
    regions = np.zeros((count, size, size), np.float32)
    known = np.ones(count, np.bool_)
    for index in range(0, count, 2):
        pool = pools[int(rng.integers(len(pools)))]
        if pool.fake and rng.random() >= made:
            group, forged = pool.fake_of(rng)
            real = _frame(pool.real_of(group, rng), rng)
            crops[index] = draw_variation(POOL_PX, size, rng, zoom=zoom).apply(real)
            crops[index + 1] = draw_variation(POOL_PX, size, rng, zoom=zoom).apply(_frame(forged, rng))
            known[index + 1] = False
        else:
            face = _frame(pool.real_of(None, rng), rng)
            donor = _frame(pool.real_of(None, rng), rng) if rng.random() < 0.25 else None
            fake, region = forge(face, sample_forgery(rng, strength=strength), donor=donor)
            variation = draw_variation(POOL_PX, size, rng, zoom=zoom)
            crops[index], crops[index + 1] = variation.apply(face), variation.apply(fake)
            regions[index + 1] = variation.move(region)
    labels = torch.arange(count).remainder(2).float()
    return torch.from_numpy(crops), labels, torch.from_numpy(regions), torch.from_numpy(known)


def _frame(clip: Clip, rng: np.random.Generator) -> NDArray[np.uint8]:
    frame: NDArray[np.uint8] = clip[int(rng.integers(len(clip)))]
    return frame


class Batches(Dataset[Batch]):
    """Gives the batch of every step of the trunk; the same one however the run was cut or shared out.

    Args:
        pools: The training sets.
        config: The run.
        rank: Number of this process.
        processes: How many there are.
    """

    def __init__(self, pools: Sequence[Pool], config: FitConfig, rank: int = 0, processes: int = 1) -> None:
        self._pools = pools
        self._config = config
        self._rank = rank
        self._sizes = config.steps(processes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, step: int) -> Batch:
        config, size = self._config, self._sizes[step]
        first, last = config.strength
        return draw_batch(
            self._pools,
            config.batch,
            size,
            np.random.default_rng((config.seed, self._rank, step)),
            strength=first + (last - first) * step / len(self._sizes),
            made=config.made,
            zoom=config.sizes[-1] / size,
        )
