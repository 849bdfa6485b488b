"""Fits what flicker says of a face, and its weight beside the network, on clips.

    judge = fit_flicker(Path("runs/first"), [Path("clips")], val_groups=["035-036"])

It is a logistic regression: of few numbers, so that few clips do. The network has seen the training clips and
is surer of them than of any others; what each of the two says is therefore brought to what it is worth on
videos that it has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from runtime.model.bundle import change_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import MANIFEST_FILE
from runtime.model.temporal_classifier import (
    MIN_SAMPLES,
    TemporalClassifier,
    temporal_features,
)
from streams.features.temporal_residuals import clip_residuals
from train.data.clip_set import LabelledClip, load_clips, read_clip_set
from train.data.crops import recrop
from train.evaluation.evaluate import sampled_otherwise, trained_on
from train.fitting.calibrate import fit, held_out, kept_entries, score_held_out
from train.fitting.platt_scaling import CalibrationError, fit_calibration
from train.fitting.head import pseudo_clip
from train.models.checkpoint import save_calibration, save_temporal
from train.sampling.augmentation import augment_clip
from train.sampling.corruptions import CORRUPTIONS, corrupt
from train.sampling.pools import POOL_PX, in_training
from train.scoring.scorer import open_scorer
from train.scoring.clip_scores import Scorer, of_videos

VARIED, DAMAGED = 3, ("h264", "blur", "resize", "noise")
"""Each clip is measured as it is, varied as live crops vary, and damaged: once coded as H.264, once in one of
these ways. What cameras and calls do to a face must not be taken for a forgery."""
PASSES = 1 + VARIED + 2
STILL_WEIGHT, STRENGTH = 0.3, 0.7
"""A frame of each real clip is made into clips too, untouched ones and forged ones: of faces that hardly move
there are few. What each counts beside a measured clip, and how strong the forgery is."""
FREEDOM = 0.3
"""Inverse of the weights' penalty, as scikit-learn takes it."""
MAX_LOGIT, UNHELD = 4.0, 1e6
"""The log-odds that flicker may reach: few videos bear out no more. And what holds it back in nothing."""
NETWORK_SHARE = 0.5
"""How far the network is taken at its word about what was kept out: its best weights were chosen on it."""
FOLDS = 10
MAX_CLIPS = 2000
"""Of each set: for few numbers more clips only take time."""


class TemporalClassifierError(CalibrationError):
    """Says that a judge of flicker cannot be fitted or read; `str()` is one line that says what to do."""


def fit_temporal_classifier(
    model: Path,
    data: Sequence[Path],
    *,
    val_groups: Collection[str] = (),
    seed: int = 0,
    name: str | None = None,
    console: Console | None = None,
) -> TemporalClassifier:
    """Fit the judge of flicker, calibrate the model with it, and write both into the model at once.

    Args:
        model: A checkpoint's directory, or a bundle's: its measured figures are those of another judge then
            and are taken out.
        data: Sets of clips. Their training sides are fitted on; on the others the network is weighed, and the
            whole is calibrated.
        val_groups: Groups kept out of sets that state no split; none for those that the model's own training
            kept out.
        seed: Of how the clips are varied.
        name: What a bundle calls itself then; None for as before.
        console: Where progress goes; standard error by default.

    Returns:
        What was written.

    Raises:
        FlickerError: There are too few clips for it, or flicker tells nothing of them.
        CalibrationError: The network's scores of what was kept out say nothing.
        ClipSetError: A set cannot be read, or has nothing on a side.
        CheckpointError, BundleError: The model cannot be read.
    """
    console = console or Console(stderr=True)
    with open_scorer(model, temporal=False) as scorer:
        if scorer.window < MIN_SAMPLES:
            raise TemporalClassifierError(
                f"flicker needs windows of {MIN_SAMPLES} crops, the model's have {scorer.window}"
            )
        groups = val_groups or tuple(scorer.training.get("fit", {}).get("val_groups", ()))
        kept = _kept_out(data, groups, scorer)
        clips = _measured(scorer, data, groups, seed, console)
        judge = _fit(clips.every(np.ones(len(clips.fake), np.bool_)), scorer.window)
        unseen = _unseen(clips, scorer.window)
        try:
            own = fit_calibration(*unseen)
        except CalibrationError as error:
            raise TemporalClassifierError(
                "flicker tells nothing of clips that it was not fitted on; give more"
            ) from error
        # Over a video: the network is wrong about a face for good, flicker about a moment of it.
        network = of_videos(
            score_held_out(scorer, kept, groups=groups or None, console=console), Calibration()
        )
        worth = fit_calibration(network.logit, network.fake)
        # In the units of the network's logits.
        scale = worth.scale / own.scale / NETWORK_SHARE
        judge = replace(
            judge,
            weights=tuple(scale * weight for weight in judge.weights),
            bias=scale * (judge.bias + own.offset),
            max_logit=scale * own.scale * MAX_LOGIT,
        )
        outputs = replace(scorer, temporal=judge)
        calibration = fit(score_held_out(outputs, kept, groups=groups or None, console=console))
    if (model / MANIFEST_FILE).is_file():
        named = {} if name is None else {"name": name}
        change_manifest(model, temporal=judge, calibration=calibration, metrics={}, **named)
    else:
        save_temporal(model, judge)
        save_calibration(model, calibration)
    return judge


class _Examples(NamedTuple):
    """Flicker (N, T, FLICKER) to fit on, its truth and what each window counts."""

    windows: NDArray[np.float32]
    fake: NDArray[np.bool_]
    weight: NDArray[np.float64]


class _Clips(NamedTuple):
    """What each clip gives to fit on, as it is first, and what the clips are."""

    examples: list[_Examples]
    fake: NDArray[np.bool_]
    groups: NDArray[np.str_]
    videos: NDArray[np.str_]

    def every(self, chosen: NDArray[np.bool_]) -> _Examples:
        """Give all examples of the chosen clips."""
        parts = [example for example, taken in zip(self.examples, chosen, strict=True) if taken]
        return _Examples(*map(np.concatenate, zip(*parts, strict=True)))


def _kept_out(data: Sequence[Path], groups: Collection[str], scorer: Scorer) -> list[Path]:
    kept = held_out(data, groups)
    if not kept:
        raise TemporalClassifierError(
            "nothing is kept out to weigh the network by; name groups that the sets have"
        )
    for folder in kept:
        clip_set = read_clip_set(folder)
        if trained_on(clip_set, kept_entries(clip_set, groups=groups or None), scorer.training):
            raise TemporalClassifierError(
                f"the model was trained on some clips of {folder} that are to be kept out; "
                "keep those out that its training kept out"
            )
    return kept


def _measured(
    scorer: Scorer, data: Sequence[Path], val_groups: Collection[str], seed: int, console: Console
) -> _Clips:
    rng = np.random.default_rng((seed, 0xF11C))
    examples, fake, groups, videos = [], [], [], []
    for number, folder in enumerate(data):
        clip_set = read_clip_set(folder)
        stated = bool(clip_set.splits())
        entries = [
            entry
            for entry in clip_set.entries
            if entry.frames >= scorer.window
            and in_training(entry, stated, tuple(val_groups))
            and not sampled_otherwise(entry, scorer)
        ]
        if len(entries) > MAX_CLIPS:
            entries = [entries[i] for i in np.sort(rng.permutation(len(entries))[:MAX_CLIPS])]
        for clip in track(
            load_clips(clip_set, entries),
            "measuring flicker",
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
            f"flicker needs real and forged clips of {scorer.window} crops, of two groups or more, at about "
            f"{scorer.sample_hz:g} crops a second; give sets that have some"
        )
    return _Clips(examples, np.array(fake), np.array(groups), np.array(videos))


def _examples(clip: LabelledClip, scorer: Scorer, rng: np.random.Generator) -> _Examples:
    frames, size, margin = clip.frames[: scorer.window], scorer.input_size, scorer.crop_margin
    plain = recrop(frames, margin=clip.margin, to_margin=margin, size=size)
    large = recrop(frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
    crops = [plain, *(augment_clip(large, size, rng) for _ in range(VARIED))]
    for way in (DAMAGED[0], str(rng.choice(DAMAGED))):
        severity = int(rng.integers(1, len(CORRUPTIONS[way].strengths) + 1))
        crops.append(corrupt(plain, way, severity, seed=int(rng.integers(1 << 31))))
    fake = [clip.fake] * PASSES
    if not clip.fake:
        for strength in (None, STRENGTH):
            still = large[int(rng.integers(len(large)))]
            made = pseudo_clip(still, len(frames), rng, strength=strength)
            crops += [recrop(made, margin=1, to_margin=1, size=size), augment_clip(made, size, rng)]
            fake += [strength is not None] * 2
    weight = np.where(np.arange(len(crops)) < PASSES, 1.0, STILL_WEIGHT) / PASSES
    return _Examples(np.stack([clip_residuals(some, margin) for some in crops]), np.array(fake), weight)


def _fit(examples: _Examples, window: int) -> TemporalClassifier:
    """Fit; the logits are as sure as those of the examples."""
    windows, fake = examples.windows, examples.fake
    centre = np.asarray(np.nanmean(windows, axis=(0, 1), dtype=np.float64))
    # What never changes tells nothing, and must not be divided by.
    scale = np.maximum(np.nanstd(windows, axis=(0, 1), dtype=np.float64), 1e-3)
    told = temporal_features(windows, centre, scale)
    middle, spread = told.mean(0), np.maximum(told.std(0), 1e-3)
    # Both classes weigh alike, and together as much as there are clips.
    share = np.where(fake, 0.5 / examples.weight[fake].sum(), 0.5 / examples.weight[~fake].sum())
    found = LogisticRegression(C=FREEDOM, max_iter=2000)
    found.fit((told - middle) / spread, fake, share * examples.weight * examples.weight.sum())
    weights = found.coef_[0] / spread
    return TemporalClassifier(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        bias=float(found.intercept_[0] - weights @ middle),
        max_logit=UNHELD,
        window=window,
    )


def _unseen(clips: _Clips, window: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give each video's mean logit by judges that were fitted without its group, and its truth."""
    logits = np.empty(len(clips.fake))
    plain = np.stack([example.windows[0] for example in clips.examples])
    folds = GroupKFold(min(FOLDS, len(set(clips.groups.tolist()))))
    for learnt, held in folds.split(plain, groups=clips.groups):
        if len(set(clips.fake[learnt].tolist())) < 2:
            raise TemporalClassifierError(
                "flicker needs real and forged clips in most of the groups; give more clips"
            )
        chosen = np.isin(np.arange(len(plain)), learnt)
        logits[held] = _fit(clips.every(chosen), window).logits(plain[held])
    rows = [clips.videos == name for name in sorted(set(clips.videos.tolist()))]
    return np.array([logits[own].mean() for own in rows]), np.array([clips.fake[own][0] for own in rows])
