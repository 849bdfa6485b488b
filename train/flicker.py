"""Fits what flicker says of a face, and its weight beside the network, on clips.

    judge = fit_flicker(Path("runs/first"), [Path("clips")], val_groups=["035-036"])

It is a logistic regression: of few numbers, so that few clips do. The network has seen the training clips and
is surer of them than of any others; what each of the two says is therefore brought to what it is worth on
videos that it has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from runtime.bundle import MANIFEST, change_manifest
from runtime.flicker import FLICKER_FILE, LEAST, FlickerJudge, read_flicker, tell, write_flicker
from runtime.verdict import Calibration
from streams.flicker import measure_clip
from train.augment import varied
from train.calibrate import held_out, score_held_out
from train.calibration import fit_calibration
from train.clipset import load_clips, read_clip_set
from train.pools import POOL_PX, in_training
from train.scorers import open_scorer
from train.scores import LabelledClip, Scorer, of_videos, recrop

PASSES = 4
"""How often each clip is measured: once as it is, then varied as live crops vary."""
FREEDOM = 0.3
"""Inverse of the weights' penalty, as scikit-learn takes it, over all passes."""
FOLDS = 10


class FlickerError(ValueError):
    """Says that a judge of flicker cannot be fitted or read; `str()` is one line that says what to do."""


def fit_flicker(
    model: Path,
    data: Sequence[Path],
    *,
    val_groups: Collection[str] = (),
    seed: int = 0,
    console: Console | None = None,
) -> FlickerJudge:
    """Fit the judge of flicker and write it into a model, whose calibration no longer fits then.

    Args:
        model: A checkpoint's or a bundle's directory.
        data: Sets of clips. Their training sides are fitted on; on the others the network is weighed.
        val_groups: Groups kept out of sets that state no split.
        seed: Of how the clips are varied.
        console: Where progress goes; standard error by default.

    Returns:
        What was written.

    Raises:
        FlickerError: There are too few clips for it.
        CalibrationError: The network's scores of what was kept out say nothing.
        ClipSetError: A set cannot be read, or has nothing on a side.
        CheckpointError, BundleError: The model cannot be read.
    """
    console = console or Console(stderr=True)
    with open_scorer(model) as scorer:
        if scorer.window < LEAST:
            raise FlickerError(f"flicker needs windows of {LEAST} crops, the model's have {scorer.window}")
        clips = _measured(scorer, data, val_groups, seed, console)
        kept = held_out(data, val_groups)
        if not kept:
            raise FlickerError("nothing is kept out to weigh the network by; keep some groups out")
        table = score_held_out(scorer, kept, groups=val_groups or None, console=console)
    # Over a video: the network is wrong about a face for good, flicker about a moment of it.
    network = of_videos(table, Calibration(), "network")
    worth = fit_calibration(network.logit, network.fake)
    own = fit_calibration(*_unseen(clips, scorer.window))
    judge = _fit(clips.windows, clips.fake, scorer.window)
    # In the units of the network's logits.
    scale = worth.temperature / own.temperature
    judge = FlickerJudge(
        centre=judge.centre,
        scale=judge.scale,
        weights=tuple(scale * weight for weight in judge.weights),
        bias=scale * (judge.bias + own.bias),
        window=judge.window,
    )
    if (model / MANIFEST).is_file():
        change_manifest(model, flicker=judge)
    else:
        write_flicker(model / FLICKER_FILE, judge)
    return judge


def read_judge(checkpoint: Path) -> FlickerJudge | None:
    """Read the judge of flicker of a checkpoint.

    Args:
        checkpoint: Its directory.

    Returns:
        The judge; None if it has none.

    Raises:
        FlickerError: The file is not what `fit_flicker` writes.
    """
    path = checkpoint / FLICKER_FILE
    if not path.is_file():
        return None
    try:
        return read_flicker(path)
    except (OSError, ValueError) as error:
        raise FlickerError(f"{path} cannot be read ({error}); run `unmask train flicker` again") from error


class _Clips(NamedTuple):
    """The flicker (N, PASSES, T, FLICKER) of the clips to fit on, and what they are."""

    windows: NDArray[np.float32]
    fake: NDArray[np.bool_]
    groups: NDArray[np.str_]
    videos: NDArray[np.str_]


def _measured(
    scorer: Scorer, data: Sequence[Path], val_groups: Collection[str], seed: int, console: Console
) -> _Clips:
    rng = np.random.default_rng((seed, 0xF11C))
    measured, fake, groups, videos = [], [], [], []
    for folder in data:
        clip_set = read_clip_set(folder)
        stated = bool(clip_set.splits())
        entries = [
            entry
            for entry in clip_set.entries
            if entry.frames >= scorer.window and in_training(entry, stated, tuple(val_groups))
        ]
        for clip in track(
            load_clips(clip_set, entries),
            "measuring flicker",
            len(entries),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            measured.append(_passes(clip, scorer, rng))
            fake.append(clip.fake)
            groups.append(f"{folder.name}/{clip.group}")
            videos.append(f"{folder.name}/{clip.video}")
    if len(set(groups)) < 2 or len(set(fake)) < 2:
        raise FlickerError(
            f"flicker needs real and forged clips of {scorer.window} crops, of two groups or more; "
            "give sets that have some"
        )
    return _Clips(np.stack(measured), np.array(fake), np.array(groups), np.array(videos))


def _passes(clip: LabelledClip, scorer: Scorer, rng: np.random.Generator) -> NDArray[np.float32]:
    frames, size, margin = clip.frames[: scorer.window], scorer.input_size, scorer.crop_margin
    plain = recrop(frames, margin=clip.margin, to_margin=margin, size=size)
    large = recrop(frames, margin=clip.margin, to_margin=margin, size=POOL_PX)
    crops = [plain, *(varied(large, size, rng) for _ in range(PASSES - 1))]
    return np.stack([measure_clip(some, margin) for some in crops])


def _fit(windows: NDArray[np.float32], fake: NDArray[np.bool_], window: int) -> FlickerJudge:
    """Fit on windows (N, PASSES, T, FLICKER); the logits are as sure as those of the clips fitted on."""
    every = windows.reshape(-1, *windows.shape[2:])
    centre = np.asarray(np.nanmean(every, axis=(0, 1), dtype=np.float64))
    # What never changes tells nothing, and must not be divided by.
    scale = np.maximum(np.nanstd(every, axis=(0, 1), dtype=np.float64), 1e-3)
    told = tell(every, centre, scale)
    middle, spread = told.mean(0), np.maximum(told.std(0), 1e-3)
    found = LogisticRegression(C=FREEDOM / windows.shape[1], class_weight="balanced", max_iter=2000)
    found.fit((told - middle) / spread, np.repeat(fake, windows.shape[1]))
    weights = found.coef_[0] / spread
    return FlickerJudge(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        bias=float(found.intercept_[0] - weights @ middle),
        window=window,
    )


def _unseen(clips: _Clips, window: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give each video's mean logit by judges that were fitted without its group, and its truth."""
    logits = np.empty(len(clips.windows))
    folds = GroupKFold(min(FOLDS, len(set(clips.groups.tolist()))))
    for learnt, held in folds.split(clips.windows, groups=clips.groups):
        if len(set(clips.fake[learnt].tolist())) < 2:
            raise FlickerError("flicker needs real and forged clips in most of the groups; give more clips")
        judge = _fit(clips.windows[learnt], clips.fake[learnt], window)
        logits[held] = judge.logits(clips.windows[held, 0])
    rows = [clips.videos == name for name in sorted(set(clips.videos.tolist()))]
    return np.array([logits[own].mean() for own in rows]), np.array([clips.fake[own][0] for own in rows])
