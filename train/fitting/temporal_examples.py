"""Training examples of the temporal classifier: the temporal residuals of training clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.model.temporal_classifier import MIN_SAMPLES
from streams.features.temporal_residuals import every_nth
from train.data.clip_set import ClipSet, Entry, load_residuals, read_clip_set
from train.fitting.platt_scaling import CalibrationError
from train.sampling.run_split import entries_of
from train.scoring.scorer import Scorer
from train.scoring.selection import sample_rate_differs

MAX_CLIPS = 2000
"""Maximum number of clips of each data set; the few parameters do not benefit from more."""


class TemporalClassifierError(CalibrationError):
    """A temporal classifier that cannot be fitted; the message is one line with advice."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Windows to fit on, one for each clip.

    Attributes:
        windows: Temporal residuals float32 `(N, T, NUM_RESIDUALS)`.
        fake: Labels `(N,)`.
        groups: Groups `(N,)`.
        videos: Names of the videos `(N,)`, different in different data sets.
        sets: Numbers of the data sets `(N,)`.
    """

    windows: NDArray[np.float32]
    fake: NDArray[np.bool_]
    groups: NDArray[np.str_]
    videos: NDArray[np.str_]
    sets: NDArray[np.intp]

    def select(self, indices: NDArray[np.intp]) -> Examples:
        """Return some of the examples, by their indices."""
        return Examples(
            windows=self.windows[indices],
            fake=self.fake[indices],
            groups=self.groups[indices],
            videos=self.videos[indices],
            sets=self.sets[indices],
        )


def temporal_examples(
    scorer: Scorer, data: Sequence[Path], val_groups: Collection[str], seed: int
) -> Examples:
    """Read the examples of the training clips.

    Args:
        scorer: The model, for the number and the rate of its crops.
        data: Clip sets; those without temporal residuals are left out.
        val_groups: Groups held out of clip sets that state no split.
        seed: Seed of the choice of clips, where a set has more than `MAX_CLIPS`.

    Raises:
        TemporalClassifierError: There are too few clips, or the model's windows are too short.
        ClipSetError: A clip set cannot be read.
    """
    if scorer.window < MIN_SAMPLES:
        raise TemporalClassifierError(
            f"a temporal classifier needs windows of {MIN_SAMPLES} crops, the model's have {scorer.window}"
        )
    rng = np.random.default_rng(seed)
    windows, facts = [], []
    for number, folder in enumerate(data):
        clip_set = read_clip_set(folder)
        if not clip_set.has_residuals:
            continue
        entries = _training_entries(clip_set, val_groups, scorer)
        if len(entries) > MAX_CLIPS:
            entries = [entries[i] for i in np.sort(rng.permutation(len(entries))[:MAX_CLIPS])]
        windows += [
            every_nth(residuals[: scorer.window], scorer.feature_every)
            for residuals in load_residuals(clip_set, entries)
        ]
        facts += [(entry.fake, entry.group, f"{number}/{entry.video}", number) for entry in entries]
    fake, groups, videos, sets = zip(*facts, strict=True) if facts else ((), (), (), ())
    if len(set(groups)) < 2 or len(set(fake)) < 2:
        raise TemporalClassifierError(
            f"the temporal classifier needs real and fake clips of {scorer.window} crops, of two groups or "
            f"more, at about {scorer.sample_hz:g} crops per second, prepared by this version of "
            "`unmask train prepare`; give sets that have some"
        )
    return Examples(
        windows=np.stack(windows),
        fake=np.array(fake),
        groups=np.array(groups),
        videos=np.array(videos),
        sets=np.array(sets),
    )


def _training_entries(clip_set: ClipSet, val_groups: Collection[str], scorer: Scorer) -> list[Entry]:
    return [
        entry
        for entry in entries_of(clip_set, "train", val_groups)
        if entry.frames >= scorer.window and not sample_rate_differs(entry, scorer)
    ]
