"""Choice of the videos of each generator, and of what is made of each video; decided without I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.data.splits import Split
from train.data.videos import Video
from train.face_swap.config import GeneratorDesign, SwapConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorPlan:
    """Generator and its videos, which are all of one split.

    Args:
        name: Name of its files; letters, digits and `-`.
        design: The architecture.
        split: Split of the videos.
        videos: Originals of the forged videos, and footage of the fit.
        seed: Seed of the fit.
    """

    name: str
    design: GeneratorDesign
    split: Split
    videos: tuple[Video, ...]
    seed: int


def plan_generators(videos: Sequence[Video], config: SwapConfig) -> list[GeneratorPlan]:
    """Divide real videos among generators.

    No person is in generators of two splits, because no group is in two splits. Videos that no generator has
    room for are left out.

    Args:
        videos: Real videos with a split, of one or more data sets.
        config: The designs, the number of videos of each, and the seed.

    Returns:
        Generators with videos of two groups or more, in the order of their splits and designs.
    """
    plans: list[GeneratorPlan] = []
    for split in ("train", "val", "test"):
        own = sorted((v for v in videos if v.split == split), key=lambda video: video_key(video, config.seed))
        # No generator for each design if there are too few videos for all.
        count = max(1, min(len(config.designs), len(own) // min(4, config.videos)))
        for number, design in enumerate(config.designs[:count]):
            chosen = tuple(own[number::count][: config.videos])
            if len({video.group for video in chosen}) > 1:
                plans.append(
                    GeneratorPlan(
                        name=f"{split}-{number + 1:02}-{design.name}",
                        design=design,
                        split=split,
                        videos=chosen,
                        seed=config.seed * 1000 + len(plans),
                    )
                )
    return plans


def choose_sources(groups: Sequence[str], sides: Sequence[float], count: int) -> list[int]:
    """Return the numbers of the videos whose people get a decoder: large faces, each of another group.

    Args:
        groups: Group of each video.
        sides: Size of the face in each video, in pixels.
        count: Maximum number of sources.
    """
    chosen: list[int] = []
    for number in np.argsort([-side for side in sides], kind="stable").tolist():
        if len(chosen) < count and groups[number] not in {groups[other] for other in chosen}:
            chosen.append(number)
    return chosen


def choose_decoder(
    target: int, groups: Sequence[str], sources: Sequence[int], swap_share: float, random: np.random.Generator
) -> int:
    """Return the decoder that draws a video's faces: a source of another group, or that of all videos.

    Args:
        target: Number of the video.
        groups: Group of each video.
        sources: Numbers of the videos of the sources.
        swap_share: Probability of a source.
        random: Random generator.

    Returns:
        Index in `sources`, or its length for a reconstruction.
    """
    others = [index for index, source in enumerate(sources) if groups[source] != groups[target]]
    swap, pick = random.random() < swap_share, random.random()
    return others[int(pick * len(others))] if swap and others else len(sources)


def video_key(video: Video, seed: int) -> bytes:
    """Return a hash of a seed and a video, which is the same wherever the data set lies."""
    return hashlib.sha256(f"{seed}:{video.data_set}:{video.path.name}:{video.group}".encode()).digest()
