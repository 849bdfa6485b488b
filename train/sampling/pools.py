"""Clips of a data set in memory, from which training crops are drawn.

pool = read_pool(Path("clips"), val_groups=("035-036",), margin=1.02)
real, fake, original = pool.dataset_pair(rng)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.data.clip_set import load_clips, read_clip_set
from train.data.crops import recrop
from train.sampling.pairing import OriginalFrame, find_original_frames
from train.sampling.run_split import entries_of

POOL_PX = 192
"""Side of the crops in memory, in pixels: larger than any input size, smaller than the 224 of the files."""

Clip = NDArray[np.uint8]
"""Crops of one face in order of time, RGB uint8 `(T, H, H, 3)`."""
Crop = NDArray[np.uint8]
"""Face crop, RGB uint8 `(H, H, 3)`."""


@dataclass(frozen=True)
class Pool:
    """Clips of one split of a data set, RGB uint8 `(T, 192, 192, 3)` each.

    Attributes:
        name: Name of the data set.
        margin: Side of the crops as a multiple of the face box height.
        real: Group -> its real clips.
        fake: Method -> its fake clips, each with its group.
    """

    name: str
    margin: float
    real: dict[str, tuple[Clip, ...]]
    fake: dict[str, tuple[tuple[str, Clip], ...]]

    def real_frame(self, rng: np.random.Generator) -> Crop:
        """Draw a frame of a real clip; every group is equally likely."""
        clips = self.real[self.groups[int(rng.integers(len(self.groups)))]]
        clip = clips[int(rng.integers(len(clips)))]
        frame: Crop = clip[int(rng.integers(len(clip)))]
        return frame

    def dataset_pair(self, rng: np.random.Generator) -> tuple[Crop, Crop, OriginalFrame | None]:
        """Draw a dataset fake and the real frame that it was made from.

        The probability of a method is proportional to the square root of its number of clips, so that rare
        methods are seen more often than they occur.

        Returns:
            The real frame, the fake frame, and how they differ. If the group of the fake has no real clip:
            any real frame, the fake frame, and None.
        """
        methods = sorted(self.fake)
        weight = np.sqrt([len(self.fake[method]) for method in methods])
        method = methods[int(rng.choice(len(methods), p=weight / weight.sum()))]
        number = int(rng.integers(len(self.fake[method])))
        group, clip = self.fake[method][number]
        index = int(rng.integers(len(clip)))
        if group not in self.real:
            return self.real_frame(rng), clip[index], None
        original = self.original_frames[method][number][index]
        return self.real[group][original.clip][original.frame], clip[index], original

    @cached_property
    def original_frames(self) -> dict[str, list[list[OriginalFrame]]]:
        """Original of every fake frame, by method and clip; empty for groups without a real clip."""

        def find(fake: tuple[str, Clip]) -> list[OriginalFrame]:
            group, clip = fake
            return find_original_frames(clip, self.real[group]) if group in self.real else []

        # OpenCV releases the interpreter lock while it registers frames.
        with ThreadPoolExecutor() as threads:
            return {method: list(threads.map(find, clips)) for method, clips in self.fake.items()}

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Groups that have a real clip."""
        return tuple(self.real)

    def clips(self) -> list[tuple[Clip, bool]]:
        """Return all clips, each with whether it is fake."""
        real = [(clip, False) for clips in self.real.values() for clip in clips]
        return real + [(clip, True) for clips in self.fake.values() for _, clip in clips]


def read_pool(folder: Path, val_groups: Sequence[str], margin: float, *, validation: bool = False) -> Pool:
    """Read one split of a data set into memory.

    Args:
        folder: Data set of prepared clips or crops.
        val_groups: Groups of the validation split; used if the data set states no split.
        margin: Margin to recrop to, as a multiple of the face box height.
        validation: Whether to read the validation split instead of the training split.

    Returns:
        The clips.

    Raises:
        ClipSetError: The data set cannot be read.
    """
    clip_set = read_clip_set(folder)
    entries = entries_of(clip_set, "val" if validation else "train", val_groups)
    real: dict[str, list[Clip]] = {}
    fake: dict[str, list[tuple[str, Clip]]] = {}
    for clip in load_clips(clip_set, entries):
        frames = recrop(clip.frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
        if clip.fake:
            fake.setdefault(clip.method, []).append((clip.group, frames))
        else:
            real.setdefault(clip.group, []).append(frames)
    return Pool(
        folder.resolve().name,
        margin,
        {group: tuple(clips) for group, clips in real.items()},
        {method: tuple(clips) for method, clips in fake.items()},
    )
