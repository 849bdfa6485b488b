"""Last step of the training: temporal classifier and calibration, fitted with held-out clips.

    calibrate_checkpoint(Path("runs/first"), [Path("clips")], val_groups=["035-036"])     # end of `fit`
    refit_temporal(Path("bundle"), [Path("clips")], val_groups=["035-036"])               # other clips

Held-out clips are scored once, without the temporal classifier; its logits are added afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from runtime.model.bundle import change_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import MANIFEST_FILE
from runtime.model.temporal_classifier import TemporalClassifier
from train.data.clip_set import read_clip_set
from train.fitting.platt_scaling import CalibrationError, fit_platt, with_thresholds
from train.fitting.temporal_classifier import fit_temporal_classifier
from train.fitting.temporal_examples import TemporalClassifierError, temporal_examples
from train.models.checkpoint import save_calibration, save_temporal, save_training
from train.models.trained_groups import record, trained_on
from train.models.writing import writing
from train.sampling.run_split import check_run, set_names, training_groups
from train.scoring.clip_scores import ClipScores, add_temporal
from train.scoring.held_out import held_out_entries, held_out_sets, score_held_out
from train.scoring.score_table import video_scores, video_weights, window_scores
from train.scoring.scorer import Scorer, open_scorer


def calibrate_checkpoint(
    checkpoint: Path,
    data: Sequence[Path],
    *,
    val_groups: Collection[str] = (),
    seed: int = 0,
    console: Console | None = None,
) -> None:
    """Fit the temporal classifier and the calibration of a new checkpoint.

    With too few clips the temporal classifier, or the calibration too, is left out; the reason is logged.

    Args:
        checkpoint: Directory of the checkpoint.
        data: The clip sets that it was trained on.
        val_groups: Groups held out of clip sets that state no split.
        seed: Seed of the choice of clips, where a set has very many.
        console: Console of the progress lines; standard error by default.

    Raises:
        ClipSetError: A clip set cannot be read.
        CheckpointError: The checkpoint cannot be read.
    """
    console = console or Console(stderr=True)
    held_out_data = held_out_sets(data, val_groups)
    if not held_out_data:
        return
    with open_scorer(checkpoint, temporal=False) as scorer:
        held_out = score_held_out(scorer, held_out_data, groups=val_groups or None, console=console)
        try:
            temporal, calibration = _fit_both(scorer, data, held_out, val_groups, seed)
        except CalibrationError as error:
            console.log(f"no temporal classifier: {error}")
        else:
            save_temporal(checkpoint, temporal)
            save_calibration(checkpoint, calibration)
            return
    try:
        save_calibration(checkpoint, fit_calibration(held_out))
    except CalibrationError as error:
        console.log(f"the model is not calibrated: {error}")


def refit_temporal(
    model: Path,
    data: Sequence[Path],
    *,
    val_groups: Collection[str] = (),
    seed: int = 0,
    name: str | None = None,
    console: Console | None = None,
) -> TemporalClassifier:
    """Fit the temporal classifier and the calibration of a trained model to other clips.

    Args:
        model: Directory of a checkpoint or a bundle. The metrics in a bundle's manifest are removed, because
            they were measured with another temporal classifier.
        data: Clip sets. Their training splits are fitted on; the scale of the network's logit and the
            calibration are fitted on their held-out clips.
        val_groups: Groups held out of clip sets that state no split; empty for those that the model's own
            training held out.
        seed: Seed of the choice of clips, where a set has very many.
        name: New name of a bundle; None to keep its name.
        console: Console of the progress lines; standard error by default.

    Returns:
        The temporal classifier, already written into the model.

    Raises:
        TemporalClassifierError: There are too few clips, or the residuals do not separate real from fake.
        CalibrationError: The network's scores of the held-out clips do not separate real from fake.
        ClipSetError: A clip set cannot be read, or has no clip of a split.
        GroupUnknown: No clip set has one of `val_groups`.
        SplitLeak: A group is in two splits, of one clip set or of two.
        CheckpointError, BundleError: The model cannot be read.
        ModelNotWritten: The model cannot be written.
    """
    console = console or Console(stderr=True)
    with open_scorer(model, temporal=False) as scorer:
        groups = val_groups or _groups_of_training(data, scorer)
        check_run(data, groups)
        held_out = score_held_out(
            scorer,
            _unseen_sets(data, groups, scorer),
            groups=groups or None,
            console=console,
        )
        temporal, calibration = _fit_both(scorer, data, held_out, groups, seed)
    fitted = {"sets": set_names(data), "val_groups": list(groups), **record(training_groups(data, groups))}
    training = {**scorer.training, "temporal": fitted}
    if (model / MANIFEST_FILE).is_file():
        renamed = {} if name is None else {"name": name}
        with writing(model):
            change_manifest(
                model, temporal=temporal, calibration=calibration, training=training, metrics={}, **renamed
            )
    else:
        save_training(model, training)
        save_temporal(model, temporal)
        save_calibration(model, calibration)
    return temporal


def fit_calibration(scores: Sequence[ClipScores]) -> Calibration:
    """Fit Platt scaling on full windows, and the thresholds on the means of videos.

    Every video weighs the same, and so do both classes. The clips of a video cover about as much time as the
    windows whose mean decides on a live verdict. Single windows vary more, so thresholds set on them would be
    stricter than the rates that they are chosen for.

    Args:
        scores: Scores of held-out clips.

    Raises:
        CalibrationError: The scores cannot be calibrated.
    """
    windows = window_scores(scores, Calibration())
    if len(windows) == 0:
        raise CalibrationError("no clip is long enough for a window; calibrate on clips of video")
    fitted = fit_platt(windows.logit, windows.fake, video_weights(windows.videos))
    videos = video_scores(scores, fitted, "window")
    return with_thresholds(fitted, videos.logit, videos.fake)


def _fit_both(
    scorer: Scorer,
    data: Sequence[Path],
    held_out: Sequence[ClipScores],
    groups: Collection[str],
    seed: int,
) -> tuple[TemporalClassifier, Calibration]:
    """Fit the temporal classifier, and the calibration of the model with it."""
    examples = temporal_examples(scorer, data, groups, seed)
    temporal = fit_temporal_classifier(examples, held_out, scorer.window)
    scores = [
        add_temporal(clip, clip.residuals, temporal, scorer)
        for clip in held_out
        if clip.residuals is not None
    ]
    return temporal, fit_calibration(scores)


def _groups_of_training(data: Sequence[Path], scorer: Scorer) -> tuple[str, ...]:
    """Return the groups that the model's training held out, of the clip sets that state no split."""
    stated = set(scorer.training.get("fit", {}).get("val_groups", ()))
    sets = [clip_set for clip_set in map(read_clip_set, data) if not clip_set.splits()]
    return tuple(sorted(stated & {entry.group for clip_set in sets for entry in clip_set.entries}))


def _unseen_sets(data: Sequence[Path], groups: Collection[str], scorer: Scorer) -> list[Path]:
    """Return the clip sets with held-out clips; refuse clips that the model was trained on."""
    held_out = held_out_sets(data, groups)
    if not held_out:
        raise TemporalClassifierError(
            "no clips are held out to calibrate with; give --val-groups that the sets have"
        )
    for folder in held_out:
        clip_set = read_clip_set(folder)
        entries = held_out_entries(clip_set, groups=groups or None)
        # The temporal classifier that the model has will be replaced.
        if known := trained_on(scorer.training, clip_set, entries, temporal=False):
            raise TemporalClassifierError(
                f"the model was trained on some of the held-out clips of {folder}, such as those of "
                f"group {known[0]!r}; give the --val-groups of its training"
            )
    return held_out
