"""Fit of the temporal classifier, two logistic regressions on temporal residuals.

They have few parameters, so few clips suffice. Their logit is added to that of the network, which is
over-confident on its training clips. All logits are therefore scaled by Platt scaling on unseen videos: the
classifier's by cross-validation, the network's on held-out videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import (
    SAMPLE_FEATURES,
    Regression,
    TemporalClassifier,
    temporal_features,
    window_changes,
)
from streams.features.temporal_residuals import NUM_RATIOS, without_frames
from train.fitting.platt_scaling import CalibrationError, fit_platt
from train.fitting.temporal_examples import Examples, TemporalClassifierError
from train.scoring.clip_scores import ClipScores
from train.scoring.score_table import video_scores

INVERSE_PENALTY = 0.1
"""`C` of scikit-learn's LogisticRegression."""
MIN_SPREAD = 1e-3
"""Lower bound of standard deviations, so that a constant feature does not divide by zero."""
MAX_LOG_ODDS, UNLIMITED = 4.0, 1e6
"""Limit of the classifier's log-odds, as few videos support no higher confidence; limit without effect."""
NETWORK_SHARE = 0.5
"""Factor on the network's log-odds, which are too high: its weights were selected on the held-out clips."""
FOLDS = 10


def fit_temporal_classifier(
    examples: Examples, held_out: Sequence[ClipScores], window: int
) -> TemporalClassifier:
    """Fit a temporal classifier in the units of the network's logits.

    Args:
        examples: Examples of the training clips.
        held_out: Scores of held-out clips.
        window: Number of crops of the model's window.

    Raises:
        TemporalClassifierError: There are too few clips, or the residuals do not separate real from fake.
        CalibrationError: The network's scores of the held-out clips do not separate real from fake.
    """
    classifier = _fit(examples, window)
    complete, slow, fake = _cross_validated(examples, window)
    try:
        own = fit_platt(complete, fake)
    except CalibrationError as error:
        raise TemporalClassifierError(
            "temporal residuals do not separate real from fake clips that were not fitted on; give more clips"
        ) from error
    try:
        own_slow = fit_platt(slow, fake)
        factor, offset = 1 / own_slow.scale, own_slow.offset
    except CalibrationError:
        # Samples alone say nothing about these clips: no evidence below 15 frames a second.
        factor, offset = 0.0, 0.0
    # By video: the network's errors persist throughout a video, those of the temporal classifier do not.
    network = video_scores(held_out, Calibration(), "network")
    units = fit_platt(network.logit, network.fake).scale / NETWORK_SHARE
    return replace(
        classifier,
        with_frames=classifier.with_frames.scaled(units / own.scale, own.offset),
        without_frames=classifier.without_frames.scaled(units * factor, offset),
        max_logit=units * MAX_LOG_ODDS,
    )


def _fit(examples: Examples, window: int) -> TemporalClassifier:
    """Fit a classifier without scaling its logits by their confidence on unseen clips."""
    windows = examples.windows
    ratios = windows[..., :NUM_RATIOS].reshape(-1, NUM_RATIOS)
    moments = [_moments(values) for values in (ratios, window_changes(windows))]
    centre, scale = (np.concatenate(values) for values in zip(*moments, strict=True))
    features = temporal_features(windows, centre, scale)
    weights = _weights(examples)
    return TemporalClassifier(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        with_frames=_regression(features, examples.fake, weights),
        without_frames=_regression(features[:, SAMPLE_FEATURES], examples.fake, weights),
        max_logit=UNLIMITED,
        window=window,
    )


def _regression(
    features: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64]
) -> Regression:
    """Fit a regression on features `(N, F)`, NaN where they are missing."""
    mean, spread = _moments(features)
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
    regression.fit(np.nan_to_num((features - mean) / spread, nan=0.0), fake, weights)
    return Regression(
        means=tuple(mean.tolist()),
        weights=tuple((regression.coef_[0] / spread).tolist()),
        bias=float(regression.intercept_[0]),
    )


def _moments(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each column without NaN; 0 and `MIN_SPREAD` if all are NaN."""
    count = np.maximum(np.count_nonzero(~np.isnan(values), axis=0), 1)
    mean = np.nansum(values, axis=0, dtype=np.float64) / count
    variance = np.nansum((values - mean) ** 2, axis=0) / count
    return mean, np.maximum(np.sqrt(variance), MIN_SPREAD)


def _weights(examples: Examples) -> NDArray[np.float64]:
    """Return the weights of the clips.

    Both classes weigh the same, within a class all data sets, and within these all clips: a large data set
    must not outvote the cameras of the small ones. The sum is the number of videos.
    """
    weights = np.zeros(len(examples.fake))
    for fake in (False, True):
        own = examples.fake == fake
        for number in set(examples.sets[own].tolist()):
            part = own & (examples.sets == number)
            weights[part] = 1 / np.count_nonzero(part)
        weights[own] *= 0.5 * len(set(examples.videos.tolist())) / weights[own].sum()
    return weights


def _cross_validated(
    examples: Examples, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Score each video by classifiers that were fitted without its group.

    Returns:
        The mean logit of each video, the same as if there were no frames between its samples, and its label.
    """
    logits = np.empty((2, len(examples.fake)))
    folds = GroupKFold(min(FOLDS, len(set(examples.groups.tolist()))))
    for fitted, held_out in folds.split(examples.windows, groups=examples.groups):
        if len(set(examples.fake[fitted].tolist())) < 2:
            raise TemporalClassifierError(
                "the temporal classifier needs real and fake clips in most of the groups; give more clips"
            )
        classifier, windows = _fit(examples.select(fitted), window), examples.windows[held_out]
        logits[:, held_out] = classifier.logits(windows), classifier.logits(without_frames(windows))
    videos = [examples.videos == name for name in sorted(set(examples.videos.tolist()))]
    fake = np.array([examples.fake[own][0] for own in videos])
    complete, slow = np.stack([logits[:, own].mean(1) for own in videos], axis=1)
    return complete, slow, fake
