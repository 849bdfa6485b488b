"""Measures how much damage to the picture costs a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from train.data.clip_set import Entry, LabelledClip
from train.evaluation.measure import Chance, measure_line
from train.sampling.corruptions import CORRUPTIONS, corrupt
from train.scoring.clip_scores import ClipScores

Damage = Callable[[LabelledClip], NDArray[np.uint8]]


def one_clip_each(entries: Sequence[Entry], *, most: int, min_frames: int, seed: int) -> list[Entry]:
    """Choose one clip of each video, as many real videos as forged ones.

    Args:
        entries: What there is.
        most: How many videos to take.
        min_frames: Shorter clips are passed over, unless all are shorter.
        seed: Of the choice of videos.

    Returns:
        The middle clip of each, in order of the shards.
    """
    long_enough = [entry for entry in entries if entry.frames >= min_frames] or entries
    videos: dict[str, list[Entry]] = defaultdict(list)
    for entry in long_enough:
        videos[entry.video].append(entry)
    rng = np.random.default_rng(seed)
    chosen: list[Entry] = []
    for fake in (False, True):
        names = sorted(name for name, clips in videos.items() if clips[0].fake is fake)
        for name in rng.permutation(names)[: most // 2]:
            clips = videos[str(name)]
            chosen.append(clips[len(clips) // 2])
    return sorted(chosen, key=lambda entry: (entry.shard, entry.clip))


def measure_robustness(
    score: Callable[[str, Damage | None], Sequence[ClipScores]], calibration: Calibration, chance: Chance
) -> list[dict[str, Any]]:
    """Measure a model on the same clips clean and with each kind and strength of damage.

    Args:
        score: Scores the clips; takes a title for the progress bar and what to do to a clip.
        calibration: From logit to probability.
        chance: How intervals are drawn, and the seed of the damage.

    Returns:
        One line for clean clips and one for each damage.
    """
    clean = {"corruption": "none", "severity": 0, "strength": None}
    found = [clean | measure_line(score("clean", None), calibration, chance)]
    for name, corruption in CORRUPTIONS.items():
        for severity, strength in enumerate(corruption.strengths, start=1):

            def damage(clip: LabelledClip, name: str = name, severity: int = severity) -> NDArray[np.uint8]:
                return corrupt(clip.frames, name, severity, seed=chance.seed)

            line = {
                "corruption": name,
                "severity": severity,
                "strength": corruption.template.format(strength),
            }
            found.append(line | measure_line(score(f"{name} {severity}", damage), calibration, chance))
    return found
