"""Scoring of clips: logits of full windows, of short windows and of single frames.

Features are computed once per crop, as in live use, and passed to the head in windows. Nothing is padded: a
clip shorter than `min_frames` has no window, as a live face with fewer samples has no verdict.

with open_scorer(model) as scorer:
    for scores in score_clips(load_clips(clip_set, entries), scorer):
        print(scores.clip, scores.window_logits)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.model.temporal_classifier import TemporalClassifier
from runtime.model.video_score import scored_windows
from streams.features.face_motion import clip_motion, is_still
from streams.features.temporal_residuals import every_nth
from train.data.clip_set import ClipSet, Entry, LabelledClip, load_clips
from train.data.crops import recrop
from train.errors import Diverged
from train.scoring.scorer import Scorer

BATCH = 128
"""Crops per backbone call: enough to keep a GPU busy, few enough for any memory."""

Transform = Callable[[LabelledClip], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """Uncalibrated logits of a clip.

    Args:
        clip: Name of the clip.
        video: Name of its video.
        fake: Label.
        method: Method that made the fake; of a real clip, the part of the data set that it comes from.
        group: Group of the video; see `train.data.splits`.
        height: Face box height in pixels of the video.
        samples: Number of crops.
        window_logits: Logit of each window of the model's length, or of the clip's length if it is shorter.
        network_logits: Logits of the same windows without the temporal classifier.
        short_window_logits: Logit of each window of `min_frames`.
        frame_logits: Logit of each crop (see `score_clips`).
        moving: Whether each window of `scan` has motion, in the order of the windows; None without temporal
            residuals. With a temporal classifier, `scan_logits` and `scan_network_logits` contain the windows
            with motion only, because `scan` gives the others no score.
        residuals: Temporal residuals float32 `(samples, NUM_RESIDUALS)`, NaN in samples that live use would
            not measure; None if the clip has none, is too short for a window, or was transformed. The
            temporal classifier adds nothing then.
    """

    clip: str
    video: str
    fake: bool
    method: str
    group: str
    height: float
    samples: int
    scan_logits: tuple[float, ...]
    scan_network_logits: tuple[float, ...]
    window_logits: tuple[float, ...]
    network_logits: tuple[float, ...]
    short_window_logits: tuple[float, ...]
    frame_logits: tuple[float, ...]
    moving: tuple[bool, ...] | None = None
    residuals: NDArray[np.float32] | None = field(default=None, compare=False)


def score_clips(
    clips: Iterable[LabelledClip],
    scorer: Scorer,
    *,
    transform: Transform | None = None,
) -> Iterator[ClipScores]:
    """Score clips.

    A single frame is scored as the head's logit of a window of one, if the model takes those; otherwise as
    its logit of a window that repeats the crop. Such windows do not occur live and serve only to diagnose
    the backbone. A single frame has no temporal residuals.

    Args:
        clips: The clips.
        scorer: The model.
        transform: Returns the frames to score instead of the clip's own; None for the clip's own.

    Returns:
        The scores, in the order of the clips.

    Raises:
        Diverged: A logit of the model is not a finite number.
    """
    waiting: list[tuple[LabelledClip, NDArray[np.uint8]]] = []
    for clip in clips:
        if transform is not None:
            # The stored residuals are of the frames as they were.
            clip = replace(clip, frames=transform(clip), residuals=None)
        crops = recrop(clip.frames, margin=clip.margin, to_margin=scorer.crop_margin, size=scorer.input_size)
        waiting.append((clip, crops))
        if sum(len(crops) for _, crops in waiting) >= BATCH:
            yield from _score(waiting, scorer)
            waiting = []
    if waiting:
        yield from _score(waiting, scorer)


def score_clip_set(
    scorer: Scorer,
    clip_set: ClipSet,
    entries: Sequence[Entry],
    *,
    console: Console | None = None,
    title: str = "scoring",
    transform: Transform | None = None,
) -> list[ClipScores]:
    """Score clips of a clip set, with a progress bar.

    Args:
        scorer: The model.
        clip_set: The clip set.
        entries: The clips to score.
        console: Console of the progress bar; standard error by default.
        title: Title of the progress bar.
        transform: As for `score_clips`.

    Returns:
        One entry per clip.

    Raises:
        ClipSetError: A shard or a frame is missing or broken.
        Diverged: A logit of the model is not a finite number.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        clips = progress.track(load_clips(clip_set, entries), total=len(entries), description=title)
        return list(score_clips(clips, scorer, transform=transform))


def add_temporal(
    scores: ClipScores, residuals: NDArray[np.float32], temporal: TemporalClassifier, scorer: Scorer
) -> ClipScores:
    """Add the logits of a temporal classifier to the scores of a clip.

    Args:
        scores: Scores without a temporal classifier.
        residuals: Temporal residuals of the clip, float32 `(samples, NUM_RESIDUALS)`.
        temporal: The temporal classifier.
        scorer: The model that the scores are of, for the lengths of its windows.

    Returns:
        The scores with the temporal classifier.
    """
    full = min(scorer.window, scores.samples)
    scanned = _add_each(scores.scan_network_logits, _of_scanned(residuals, scorer, temporal.logits))
    return replace(
        scores,
        scan_logits=_select(scanned, scores.moving),
        scan_network_logits=_select(scores.scan_network_logits, scores.moving),
        window_logits=_add(scores.network_logits, temporal, _windows(residuals, full, scorer.min_frames)),
        short_window_logits=_add(
            scores.short_window_logits, temporal, _windows(residuals, scorer.min_frames, scorer.min_frames)
        ),
    )


def _score(batch: Sequence[tuple[LabelledClip, NDArray[np.uint8]]], scorer: Scorer) -> Iterator[ClipScores]:
    joined = np.concatenate([crops for _, crops in batch])
    features = np.concatenate([scorer.features(joined[i : i + BATCH]) for i in range(0, len(joined), BATCH)])
    ends = np.cumsum([len(crops) for _, crops in batch])
    for (clip, crops), own in zip(batch, np.split(features, ends[:-1]), strict=True):
        scores = _network_scores(clip, own, scorer)
        if scores.network_logits and clip.residuals is not None:
            residuals = every_nth(clip.residuals, scorer.feature_every)
            scores = replace(scores, moving=_moving(crops, scorer), residuals=residuals)
            if scorer.temporal is not None:
                scores = add_temporal(scores, residuals, scorer.temporal, scorer)
        yield scores


def _network_scores(clip: LabelledClip, features: NDArray[np.float32], scorer: Scorer) -> ClipScores:
    full, shortest = min(scorer.window, len(features)), scorer.min_frames
    network = _logits(scorer, _windows(features, full, shortest))
    scanned = _of_scanned(features, scorer, partial(_finite_logits, scorer))
    repeats = 1 if shortest == 1 else scorer.window
    return ClipScores(
        clip=clip.clip,
        video=clip.video,
        fake=clip.fake,
        method=clip.method,
        group=clip.group,
        height=clip.height,
        samples=len(features),
        scan_logits=scanned,
        scan_network_logits=scanned,
        window_logits=network,
        network_logits=network,
        short_window_logits=_logits(scorer, _windows(features, shortest, shortest)),
        frame_logits=_logits(scorer, np.repeat(features[:, None], repeats, axis=1)),
    )


def _windows(values: NDArray[np.float32], length: int, min_frames: int) -> NDArray[np.float32]:
    """Cut values `(T, D)` into adjacent windows `(N, length, D)`; the last one ends with the clip."""
    if len(values) < min_frames or length < min_frames:
        return np.empty((0, max(length, 1), values.shape[1]), dtype=np.float32)
    starts = list(range(0, len(values) - length + 1, length))
    if starts[-1] + length < len(values):
        starts.append(len(values) - length)
    return np.stack([values[start : start + length] for start in starts])


def _of_scanned(
    values: NDArray[np.float32], scorer: Scorer, logits: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> tuple[float, ...]:
    """Score the windows of values `(T, D)` that `scan` scores; windows of equal length share a call."""
    spans = scored_windows(len(values), window=scorer.window, min_frames=scorer.min_frames)
    found: dict[tuple[int, int], float] = {}
    for length in sorted({end - start for start, end in spans}):
        group = [(start, end) for start, end in spans if end - start == length]
        windows = np.stack([values[start:end] for start, end in group])
        found.update(zip(group, logits(windows).tolist(), strict=True))
    return tuple(found[span] for span in spans)


def _moving(crops: NDArray[np.uint8], scorer: Scorer) -> tuple[bool, ...]:
    """Return whether `scan` scores each window, by the motion in it."""
    motion = clip_motion(crops)
    spans = scored_windows(len(crops), window=scorer.window, min_frames=scorer.min_frames)
    return tuple(is_still(motion[start:end], window=scorer.window) is False for start, end in spans)


def _select(logits: Sequence[float], kept: Sequence[bool] | None) -> tuple[float, ...]:
    if kept is None:
        return tuple(logits)
    return tuple(logit for logit, keep in zip(logits, kept, strict=True) if keep)


def _add_each(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple((np.asarray(first) + np.asarray(second)).tolist())


def _logits(scorer: Scorer, windows: NDArray[np.float32]) -> tuple[float, ...]:
    if len(windows) == 0:
        return ()
    return tuple(_finite_logits(scorer, np.ascontiguousarray(windows)).tolist())


def _finite_logits(scorer: Scorer, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = scorer.logits(windows)
    if not np.isfinite(logits).all():
        raise Diverged(
            f"a logit of {scorer.name} is not a finite number: its training diverged; use an earlier model, "
            "or train it again with a smaller lr"
        )
    return logits


def _add(
    logits: Sequence[float], temporal: TemporalClassifier, residuals: NDArray[np.float32]
) -> tuple[float, ...]:
    return tuple((np.asarray(logits) + temporal.logits(residuals)).tolist())
