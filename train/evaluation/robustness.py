"""Metrics of a model on corrupted clips: compression, blur, noise, changes of size and light."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from train.data.clip_set import Entry, LabelledClip
from train.evaluation.measure import measure_summary
from train.sampling.corruptions import CORRUPTIONS, corrupt
from train.scoring.bootstrap import BootstrapConfig
from train.scoring.clip_scores import ClipScores, Transform


def one_clip_per_video(
    entries: Sequence[Entry], *, max_videos: int, min_frames: int, seed: int
) -> list[Entry]:
    """Choose one clip per video, of as many real videos as fake ones.

    Args:
        entries: Clips to choose from.
        max_videos: Maximum number of videos.
        min_frames: Clips with fewer frames are left out, unless all have fewer.
        seed: Seed of the choice of videos.

    Returns:
        The middle clip of each video, in the order of the shards.
    """
    long_enough = [entry for entry in entries if entry.frames >= min_frames] or entries
    videos: dict[str, list[Entry]] = defaultdict(list)
    for entry in long_enough:
        videos[entry.video].append(entry)
    rng = np.random.default_rng(seed)
    chosen: list[Entry] = []
    for fake in (False, True):
        names = sorted(name for name, clips in videos.items() if clips[0].fake is fake)
        for name in rng.permutation(names)[: max_videos // 2]:
            clips = videos[str(name)]
            chosen.append(clips[len(clips) // 2])
    return sorted(chosen, key=lambda entry: (entry.shard, entry.clip))


def measure_robustness(
    score: Callable[[str, Transform], Sequence[ClipScores]],
    calibration: Calibration,
    config: BootstrapConfig,
) -> list[dict[str, Any]]:
    """Evaluate a network on the same clips without corruption and with each corruption.

    The temporal classifier is left out: crops are corrupted here, and its residuals need whole frames.
    `unmask train benchmark --transcode` measures it.

    Args:
        score: Function that scores the clips, with a title for the progress bar and a transform of frames.
        calibration: Calibration of the logits.
        config: Number and seed of the bootstrap draws; the seed also draws the corruptions.

    Returns:
        One row for clean clips, then one per corruption and severity.
    """
    clean = {"corruption": "none", "severity": 0, "strength": None}
    unchanged = score("clean", lambda clip: clip.frames)
    rows = [clean | measure_summary(unchanged, calibration, config)]
    for name, corruption in CORRUPTIONS.items():
        for severity, strength in enumerate(corruption.strengths, start=1):

            def transform(
                clip: LabelledClip, name: str = name, severity: int = severity
            ) -> NDArray[np.uint8]:
                return corrupt(clip.frames, name, severity, seed=config.seed)

            row = {"corruption": name, "severity": severity, "strength": corruption.template.format(strength)}
            scores = score(f"{name} {severity}", transform)
            rows.append(row | measure_summary(scores, calibration, config))
    return rows
