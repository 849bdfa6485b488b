"""Training examples of the temporal classifier.

They are the temporal residuals of each training clip, unchanged, augmented and corrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from runtime.model.temporal_classifier import MIN_SAMPLES
from streams.features.temporal_residuals import clip_residuals
from train.data.clip_set import Entry, LabelledClip, load_clips, read_clip_set
from train.data.crops import recrop
from train.fitting.head import pseudo_clip
from train.fitting.platt_scaling import CalibrationError
from train.sampling.augmentation import augment_clip
from train.sampling.corruptions import CORRUPTIONS, corrupt
from train.sampling.pools import POOL_PX, in_training
from train.scoring.scorer import Scorer
from train.scoring.selection import sample_rate_differs

AUGMENTED, CORRUPTED = 3, ("h264", "blur", "resize", "noise")
"""Further versions of each clip: augmented ones, and two corrupted ones, by H.264 and by one of the named
corruptions. The artefacts of cameras and calls must not count as signs of a fake."""
VERSIONS = 1 + AUGMENTED + 2
PSEUDO_WEIGHT, PSEUDO_STRENGTH = 0.3, 0.7
"""Weight of pseudo clips, which are examples of faces that hardly move, and strength of their fakes."""
MAX_CLIPS = 2000
"""Maximum number of clips of each data set; the few parameters do not benefit from more."""


class TemporalClassifierError(CalibrationError):
    """A temporal classifier that cannot be fitted; the message is one line with advice."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Windows to fit on.

    Attributes:
        windows: Temporal residuals float32 `(N, T, RESIDUALS)`.
        fake: Labels `(N,)`.
        weight: Weights `(N,)`; those of one clip's versions sum to about 1.
    """

    windows: NDArray[np.float32]
    fake: NDArray[np.bool_]
    weight: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClipExamples:
    """Examples of each training clip, the clip itself first, and labels, groups and videos of the clips."""

    examples: list[Examples]
    fake: NDArray[np.bool_]
    groups: NDArray[np.str_]
    videos: NDArray[np.str_]

    def of_clips(self, mask: NDArray[np.bool_] | None = None) -> Examples:
        """Return the examples of the clips where a mask `(clips,)` is true; of all clips without one."""
        chosen = self.examples
        if mask is not None:
            chosen = [example for example, taken in zip(chosen, mask, strict=True) if taken]
        return Examples(
            windows=np.concatenate([example.windows for example in chosen]),
            fake=np.concatenate([example.fake for example in chosen]),
            weight=np.concatenate([example.weight for example in chosen]),
        )

    def unchanged(self) -> NDArray[np.float32]:
        """Return the temporal residuals of the clips themselves, `(clips, T, RESIDUALS)`."""
        return np.stack([example.windows[0] for example in self.examples])


def clip_examples(
    scorer: Scorer, data: Sequence[Path], val_groups: Collection[str], seed: int, console: Console
) -> ClipExamples:
    """Compute the examples of the training clips.

    Args:
        scorer: The model, for the size, margin and number of its crops.
        data: Clip sets.
        val_groups: Groups held out of clip sets that state no split.
        seed: Seed of the augmentation.
        console: Console of the progress bar.

    Raises:
        TemporalClassifierError: There are too few clips, or the model's windows are too short.
        ClipSetError: A clip set cannot be read.
    """
    if scorer.window < MIN_SAMPLES:
        raise TemporalClassifierError(
            f"a temporal classifier needs windows of {MIN_SAMPLES} crops, the model's have {scorer.window}"
        )
    rng = np.random.default_rng((seed, 0xF11C))
    examples, fake, groups, videos = [], [], [], []
    for number, folder in enumerate(data):
        clip_set = read_clip_set(folder)
        entries = _training_entries(clip_set.entries, bool(clip_set.splits()), val_groups, scorer)
        if len(entries) > MAX_CLIPS:
            entries = [entries[i] for i in np.sort(rng.permutation(len(entries))[:MAX_CLIPS])]
        for clip in track(
            load_clips(clip_set, entries),
            "computing temporal residuals",
            len(entries),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            examples.append(_examples(clip, scorer, rng))
            fake.append(clip.fake)
            groups.append(clip.group)
            videos.append(f"{number}/{clip.video}")
    if len(set(groups)) < 2 or len(set(fake)) < 2:
        raise TemporalClassifierError(
            f"the temporal classifier needs real and fake clips of {scorer.window} crops, of two groups or "
            f"more, at about {scorer.sample_hz:g} crops per second; give sets that have some"
        )
    return ClipExamples(
        examples=examples, fake=np.array(fake), groups=np.array(groups), videos=np.array(videos)
    )


def _training_entries(
    entries: Sequence[Entry], has_splits: bool, val_groups: Collection[str], scorer: Scorer
) -> list[Entry]:
    return [
        entry
        for entry in entries
        if entry.frames >= scorer.window
        and in_training(entry, has_splits, tuple(val_groups))
        and not sample_rate_differs(entry, scorer)
    ]


def _examples(clip: LabelledClip, scorer: Scorer, rng: np.random.Generator) -> Examples:
    frames, size, margin = clip.frames[: scorer.window], scorer.input_size, scorer.crop_margin
    plain = recrop(frames, margin=clip.margin, to_margin=margin, size=size)
    large = recrop(frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
    versions = [plain, *(augment_clip(large, size, rng) for _ in range(AUGMENTED))]
    for name in (CORRUPTED[0], str(rng.choice(CORRUPTED))):
        severity = int(rng.integers(1, len(CORRUPTIONS[name].strengths) + 1))
        versions.append(corrupt(plain, name, severity, seed=int(rng.integers(1 << 31))))
    fake = [clip.fake] * VERSIONS
    if not clip.fake:
        for strength in (None, PSEUDO_STRENGTH):
            still = large[int(rng.integers(len(large)))]
            pseudo = pseudo_clip(still, len(frames), rng, strength=strength)
            versions += [recrop(pseudo, margin=1, to_margin=1, size=size), augment_clip(pseudo, size, rng)]
            fake += [strength is not None] * 2
    return Examples(
        windows=np.stack([clip_residuals(crops, margin) for crops in versions]),
        fake=np.array(fake),
        weight=np.where(np.arange(len(versions)) < VERSIONS, 1.0, PSEUDO_WEIGHT) / VERSIONS,
    )
