"""Tables of scores and labels, per video, per window or per frame.

videos = video_scores(clip_scores, calibration)
print(auc(videos.fake, videos.logit))
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from runtime.model.video_score import FaceLogits, video_p_fake
from train.scoring.clip_scores import ClipScores

LogitKind = Literal["scan", "network", "window", "short_window", "frame_mean"]
"""Kind of a clip's logits: of the windows that `unmask scan` scores, of the same without the temporal
classifier, of adjacent full windows, of windows of `min_frames`, or the mean over its frames."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores and labels, one row per video, window or frame.

    Args:
        videos: Names of the videos `(N,)`.
        fake: Labels `(N,)`.
        logit: Uncalibrated logits `(N,)`.
        p_fake: Calibrated probabilities `(N,)`, 0..1.
        groups: Groups `(N,)`; an original video and its fakes are one group.
        methods: Method of each fake `(N,)`.
    """

    videos: tuple[str, ...]
    fake: NDArray[np.bool_]
    logit: NDArray[np.float64]
    p_fake: NDArray[np.float64]
    groups: tuple[str, ...]
    methods: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.videos)

    def select(self, mask: NDArray[np.bool_]) -> ScoreTable:
        """Return the rows where a mask `(N,)` is true."""
        rows = np.flatnonzero(mask)
        return ScoreTable(
            videos=tuple(self.videos[i] for i in rows),
            fake=self.fake[rows],
            logit=self.logit[rows],
            p_fake=self.p_fake[rows],
            groups=tuple(self.groups[i] for i in rows),
            methods=tuple(self.methods[i] for i in rows),
        )


def video_scores(
    scores: Iterable[ClipScores], calibration: Calibration, kind: LogitKind = "scan"
) -> ScoreTable:
    """Return one row per video that has a score, aggregated as `unmask scan` does.

    Args:
        scores: Scores of clips, in any order.
        calibration: Calibration of the logits.
        kind: Which logits to aggregate.
    """
    videos: dict[str, list[ClipScores]] = defaultdict(list)
    for score in scores:
        videos[score.video].append(score)
    rows = []
    for clips in videos.values():
        logits = [logit for clip in clips for logit in _logits(clip, kind)]
        if not logits:
            continue
        face = FaceLogits(
            face=0,
            logits=logits,
            samples=sum(clip.samples for clip in clips),
        )
        p_fake = video_p_fake([face], calibration)
        if p_fake is not None:
            rows.append((clips[0], float(np.mean(logits)), p_fake))
    return _table(rows)


def window_scores(
    scores: Iterable[ClipScores],
    calibration: Calibration,
    kind: Literal["window", "short_window"] = "window",
) -> ScoreTable:
    """Return one row per window, as live verdicts are made from one window.

    Args:
        scores: Scores of clips.
        calibration: Calibration of the logits.
        kind: Full windows, or windows of `min_frames`.
    """
    return _table(
        [(clip, logit, calibration.p_fake(logit)) for clip in scores for logit in _logits(clip, kind)]
    )


def frame_scores(scores: Iterable[ClipScores], calibration: Calibration) -> ScoreTable:
    """Return one row per crop.

    Args:
        scores: Scores of clips.
        calibration: Calibration of the logits.
    """
    return _table(
        [(clip, logit, calibration.p_fake(logit)) for clip in scores for logit in clip.frame_logits]
    )


def video_or_frame_scores(
    scores: Sequence[ClipScores], calibration: Calibration
) -> tuple[Literal["video", "frame"], ScoreTable]:
    """Return the scores of videos or, if no clip is long enough for a window, of frames.

    Args:
        scores: Scores of clips.
        calibration: Calibration of the logits.

    Returns:
        Which of the two, and the scores.
    """
    videos = video_scores(scores, calibration)
    return ("video", videos) if len(videos) else ("frame", frame_scores(scores, calibration))


def video_weights(videos: Sequence[str]) -> NDArray[np.float64]:
    """Return weights of windows `(N,)` that give every video the same total weight, whatever its length.

    Args:
        videos: Name of the video of each window, `(N,)`.
    """
    counts = Counter(videos)
    return np.array([1.0 / counts[video] for video in videos])


def _logits(clip: ClipScores, kind: LogitKind) -> tuple[float, ...]:
    if kind == "frame_mean":
        # Only for clips with a window that `scan` scores, so that both cover the same videos.
        return (float(np.mean(clip.frame_logits)),) if clip.scan_network_logits else ()
    by_kind = {
        "scan": clip.scan_logits,
        "network": clip.scan_network_logits,
        "window": clip.window_logits,
        "short_window": clip.short_window_logits,
    }
    return by_kind[kind]


def _table(rows: Sequence[tuple[ClipScores, float, float]]) -> ScoreTable:
    return ScoreTable(
        videos=tuple(clip.video for clip, _, _ in rows),
        fake=np.array([clip.fake for clip, _, _ in rows], dtype=np.bool_),
        logit=np.array([logit for _, logit, _ in rows], dtype=np.float64),
        p_fake=np.array([p_fake for _, _, p_fake in rows], dtype=np.float64),
        groups=tuple(clip.group for clip, _, _ in rows),
        methods=tuple(clip.method for clip, _, _ in rows),
    )
