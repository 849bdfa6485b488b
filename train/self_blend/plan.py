"""Choice of what is made of each real video; decided without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from train.data.videos import Video
from train.face_swap.forged_set import ForgedPair, file_name
from train.face_swap.plan import video_key
from train.self_blend.config import SelfBlendConfig

MAX_SIDES = (480, 640, 960)
MIN_CRF, MAX_CRF = 15, 32
MAX_START_S = 4.0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Form of the written videos, the same for the real and the forged one.

    Attributes:
        max_side: Longer side in pixels; larger frames are scaled down.
        crf: Quality by x264's scale.
        start_s: Seconds of the real video that are left out at its start.
    """

    max_side: int
    crf: int
    start_s: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, from_start: bool) -> Self:
        """Draw the form of a pair of videos."""
        return cls(
            max_side=int(rng.choice(MAX_SIDES)),
            crf=int(rng.integers(MIN_CRF, MAX_CRF, endpoint=True)),
            start_s=0.0 if from_start else float(rng.uniform(0, MAX_START_S)),
        )


@dataclass(frozen=True, kw_only=True)
class SelfBlendTask:
    """Self-blended video to make.

    Attributes:
        pair: The video and its original.
        key: Seed of everything that is drawn for them.
        from_start: Whether both begin where the real video begins.
    """

    pair: ForgedPair
    key: int
    from_start: bool


def plan_self_blends(videos: Sequence[Video], config: SelfBlendConfig) -> list[SelfBlendTask]:
    """Return what is to be made of real videos.

    Args:
        videos: Real videos of one or more data sets; one that is listed twice is used once.
        config: The number of versions and the seed.
    """
    tasks: dict[str, SelfBlendTask] = {}
    for video in videos:
        for version in range(1, config.versions + 1):
            name = f"{file_name(video)}_v{version}"
            pair = ForgedPair(name=name, video=video, method="self-blend", data_set="self-blends")
            key = int.from_bytes(video_key(video, config.seed) + version.to_bytes(4))
            tasks.setdefault(name, SelfBlendTask(pair=pair, key=key, from_start=version == 1))
    return list(tasks.values())
