"""Scores clips with a model, and gathers the scores of a video.

The model is anything with the two calls of `runtime.engines.factory.Engine`, and maybe a judge of flicker. Features
are computed once per crop, as live, and judged in windows. Nothing is ever padded: a clip shorter than
`min_frames` has no window, as live it has no verdict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import TemporalClassifier
from runtime.model.video_score import FaceLogits, video_p_fake
from streams.features.temporal_residuals import clip_residuals
from train.data.clip_set import LabelledClip
from train.data.crops import recrop

# Crops per backbone call: enough to keep a GPU busy, little enough for any memory.
BATCH = 128

Reading = Literal["windows", "network", "short", "frame_mean"]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Holds a model ready to score: its two halves, and what it wants to see.

    Args:
        name: What the model calls itself.
        identity: Which one it is, and what runs it.
        input_size: Side of its crops in pixels.
        crop_margin: Side of its crops over the height of the face box.
        sample_hz: Crops of a face per second that it was trained on.
        window: The most crops it judges at once.
        min_frames: The fewest.
        calibration: None if it has none.
        features: From uint8 RGB crops `(N, H, W, 3)` to float32 `(N, D)`.
        logits: From float32 windows `(N, T, D)` to float32 `(N,)`.
        training: How it was trained, as far as its checkpoint or manifest states it.
        flicker: What the flicker of a window adds to its logit; None for nothing.
    """

    name: str
    identity: str
    input_size: int
    crop_margin: float
    sample_hz: float
    window: int
    min_frames: int
    calibration: Calibration | None
    features: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    training: Mapping[str, Any] = field(default_factory=dict)
    temporal: TemporalClassifier | None = None


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """Holds the logits of a clip, uncalibrated.

    Args:
        clip: Its name.
        video: The name of its video.
        fake: The truth.
        method: How it was forged.
        group: What it belongs with.
        height: Of the face box in pixels of the video.
        samples: How many crops it has.
        windows: One per window of the model's full length (of the clip's, where it is shorter).
        network: The same without what flicker adds.
        short: One per window of `min_frames`.
        frames: One per crop; see `score_clips` for what that is.
    """

    clip: str
    video: str
    fake: bool
    method: str
    group: str
    height: float
    samples: int
    windows: tuple[float, ...]
    network: tuple[float, ...]
    short: tuple[float, ...]
    frames: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Holds scores side by side, one per video, window or frame.

    Args:
        names: (N,) of the videos.
        fake: (N,) truth.
        logit: (N,) uncalibrated.
        p_fake: (N,) calibrated, 0..1.
        groups: (N,) what belongs together.
        methods: (N,) how each was forged.
    """

    names: tuple[str, ...]
    fake: NDArray[np.bool_]
    logit: NDArray[np.float64]
    p_fake: NDArray[np.float64]
    groups: tuple[str, ...]
    methods: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def where(self, kept: NDArray[np.bool_]) -> Scored:
        """Give the part of the scores that a mask keeps.

        Args:
            kept: (N,) what to keep.

        Returns:
            That part.
        """
        index = np.flatnonzero(kept)
        return Scored(
            names=tuple(self.names[i] for i in index),
            fake=self.fake[index],
            logit=self.logit[index],
            p_fake=self.p_fake[index],
            groups=tuple(self.groups[i] for i in index),
            methods=tuple(self.methods[i] for i in index),
        )


def score_clips(
    clips: Iterable[LabelledClip],
    scorer: Scorer,
    *,
    damage: Callable[[LabelledClip], NDArray[np.uint8]] | None = None,
) -> Iterator[ClipScores]:
    """Score clips one after the other.

    A frame's own score is the head's answer to that frame alone where the model takes windows of one;
    otherwise to a window of the same crop over and over. The latter is nothing that happens live: it is a
    diagnosis of the backbone and counts in no verdict. A single frame has no flicker.

    Args:
        clips: What to score.
        scorer: The model.
        damage: Gives the frames to score in place of the clip's own; None for those.

    Returns:
        The scores, in the order of the clips.
    """
    waiting: list[tuple[LabelledClip, NDArray[np.uint8]]] = []
    for clip in clips:
        frames = damage(clip) if damage is not None else clip.frames
        crops = recrop(frames, margin=clip.margin, to_margin=scorer.crop_margin, size=scorer.input_size)
        waiting.append((clip, crops))
        if sum(len(crops) for _, crops in waiting) >= BATCH:
            yield from _score(waiting, scorer)
            waiting = []
    if waiting:
        yield from _score(waiting, scorer)


def _score(batch: Sequence[tuple[LabelledClip, NDArray[np.uint8]]], scorer: Scorer) -> Iterator[ClipScores]:
    crops = np.concatenate([crops for _, crops in batch])
    features = np.concatenate([scorer.features(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)])
    still = 1 if scorer.min_frames == 1 else scorer.window
    start = 0
    for clip, of_clip in batch:
        own = features[start : start + len(of_clip)]
        start += len(of_clip)
        full = min(scorer.window, len(own))
        network = _logits(scorer, _windows(own, full, scorer.min_frames))
        short = _logits(scorer, _windows(own, scorer.min_frames, scorer.min_frames))
        outputs = network
        if scorer.temporal is not None and network:
            temporal = clip_residuals(of_clip, scorer.crop_margin)
            outputs = _added(network, scorer.temporal, _windows(temporal, full, scorer.min_frames))
            short = _added(short, scorer.temporal, _windows(temporal, scorer.min_frames, scorer.min_frames))
        yield ClipScores(
            clip=clip.clip,
            video=clip.video,
            fake=clip.fake,
            method=clip.method,
            group=clip.group,
            height=clip.height,
            samples=len(own),
            windows=outputs,
            network=network,
            short=short,
            frames=_logits(scorer, np.repeat(own[:, None], still, axis=1)),
        )


def of_videos(scores: Iterable[ClipScores], calibration: Calibration, reading: Reading = "windows") -> Scored:
    """Gather the scores of each video, as `scan` does it.

    Args:
        scores: Of clips; those of a video need not be neighbours.
        calibration: From logit to probability.
        reading: Which logits: of full windows, of the same without flicker, of windows of `min_frames`, or
            each clip's mean over its frames.

    Returns:
        One score per video that has any.
    """
    videos: dict[str, list[ClipScores]] = defaultdict(list)
    for score in scores:
        videos[score.video].append(score)
    rows = []
    for name, parts in videos.items():
        logits = [logit for part in parts for logit in _read(part, reading)]
        if not logits:
            continue
        record = FaceLogits(
            face=0,
            logits=logits,
            samples=sum(part.samples for part in parts),
            height=float(np.median([part.height for part in parts])),
        )
        p_fake = video_p_fake([record], calibration, samples=record.samples)
        if p_fake is not None:
            rows.append((name, parts[0], float(np.mean(logits)), p_fake))
    return _scored(rows)


def of_windows(
    scores: Iterable[ClipScores], calibration: Calibration, reading: Literal["windows", "short"] = "windows"
) -> Scored:
    """Give the score of each window by itself: what a live verdict is made of.

    Args:
        scores: Of clips.
        calibration: From logit to probability.
        reading: Full windows, or windows of `min_frames`.

    Returns:
        One score per window.
    """
    return _scored(
        [(score.video, score, x, calibration.p_fake(x)) for score in scores for x in _read(score, reading)]
    )


def of_frames(scores: Iterable[ClipScores], calibration: Calibration) -> Scored:
    """Give the score of each frame by itself.

    Args:
        scores: Of clips.
        calibration: From logit to probability.

    Returns:
        One score per crop.
    """
    return _scored([(score.video, score, x, calibration.p_fake(x)) for score in scores for x in score.frames])


def best_level(
    scores: Sequence[ClipScores], calibration: Calibration
) -> tuple[Literal["video", "frame"], Scored]:
    """Give the scores of videos or, where no clip is long enough for a window, of frames.

    Args:
        scores: Of clips.
        calibration: From logit to probability.

    Returns:
        Which of the two, and the scores.
    """
    videos = of_videos(scores, calibration)
    return ("video", videos) if len(videos) else ("frame", of_frames(scores, calibration))


def _read(score: ClipScores, reading: Reading) -> tuple[float, ...]:
    if reading == "frame_mean":
        # Only where there is a window too, or the comparison with windows would be one of different videos.
        return (float(np.mean(score.frames)),) if score.windows else ()
    by_name = {"windows": score.windows, "network": score.network, "short": score.short}
    return by_name[reading]


def _scored(rows: Sequence[tuple[str, ClipScores, float, float]]) -> Scored:
    return Scored(
        names=tuple(name for name, _, _, _ in rows),
        fake=np.array([score.fake for _, score, _, _ in rows], dtype=np.bool_),
        logit=np.array([logit for _, _, logit, _ in rows], dtype=np.float64),
        p_fake=np.array([p_fake for _, _, _, p_fake in rows], dtype=np.float64),
        groups=tuple(score.group for _, score, _, _ in rows),
        methods=tuple(score.method for _, score, _, _ in rows),
    )


def _windows(features: NDArray[np.float32], length: int, least: int) -> NDArray[np.float32]:
    if len(features) < least or length < least:
        return np.empty((0, max(length, 1), features.shape[1]), dtype=np.float32)
    # Side by side; what is left over at the end is covered by one more that ends with the clip.
    starts = list(range(0, len(features) - length + 1, length))
    if starts[-1] + length < len(features):
        starts.append(len(features) - length)
    return np.stack([features[start : start + length] for start in starts])


def _logits(scorer: Scorer, windows: NDArray[np.float32]) -> tuple[float, ...]:
    if len(windows) == 0:
        return ()
    return tuple(float(logit) for logit in scorer.logits(np.ascontiguousarray(windows)))


def _added(
    logits: Sequence[float], judge: TemporalClassifier, temporal: NDArray[np.float32]
) -> tuple[float, ...]:
    return tuple((np.asarray(logits) + judge.logits(temporal)).tolist())
