"""Fit of the temporal classifier, a logistic regression on temporal residuals.

It has few parameters, so few clips suffice. Its logit is added to that of the network, which is
over-confident on its training clips. Both logits are therefore scaled by Platt scaling on unseen videos: the
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
from runtime.model.temporal_classifier import TemporalClassifier, temporal_features
from train.fitting.platt_scaling import CalibrationError, fit_platt
from train.fitting.temporal_examples import ClipExamples, Examples, TemporalClassifierError
from train.scoring.clip_scores import ClipScores
from train.scoring.score_table import video_scores

INVERSE_PENALTY = 0.3
"""`C` of scikit-learn's LogisticRegression."""
MIN_SPREAD = 1e-3
"""Lower bound of standard deviations, so that a constant feature does not divide by zero."""
MAX_LOG_ODDS, UNLIMITED = 4.0, 1e6
"""Limit of the classifier's log-odds, as few videos support no higher confidence; limit without effect."""
NETWORK_SHARE = 0.5
"""Factor on the network's log-odds, which are too high: its weights were selected on the held-out clips."""
FOLDS = 10


def fit_temporal_classifier(
    clips: ClipExamples, held_out: Sequence[ClipScores], window: int
) -> TemporalClassifier:
    """Fit a temporal classifier in the units of the network's logits.

    Args:
        clips: Examples of the training clips.
        held_out: Scores of held-out clips.
        window: Number of crops of the model's window.

    Raises:
        TemporalClassifierError: There are too few clips, or the residuals do not separate real from fake.
        CalibrationError: The network's scores of the held-out clips do not separate real from fake.
    """
    classifier = _fit(clips.of_clips(), window)
    try:
        own = fit_platt(*_cross_validated(clips, window))
    except CalibrationError as error:
        raise TemporalClassifierError(
            "temporal residuals do not separate real from fake clips that were not fitted on; give more clips"
        ) from error
    # By video: the network's errors persist throughout a video, those of the temporal classifier do not.
    network = video_scores(held_out, Calibration(), "network")
    scale = fit_platt(network.logit, network.fake).scale / own.scale / NETWORK_SHARE
    return replace(
        classifier,
        weights=tuple(scale * weight for weight in classifier.weights),
        bias=scale * (classifier.bias + own.offset),
        max_logit=scale * own.scale * MAX_LOG_ODDS,
    )


def _fit(examples: Examples, window: int) -> TemporalClassifier:
    """Fit a classifier without scaling its logits by their confidence on unseen clips."""
    windows, fake = examples.windows, examples.fake
    centre = np.asarray(np.nanmean(windows, axis=(0, 1), dtype=np.float64))
    scale = np.maximum(np.nanstd(windows, axis=(0, 1), dtype=np.float64), MIN_SPREAD)
    features = temporal_features(windows, centre, scale)
    mean, spread = features.mean(0), np.maximum(features.std(0), MIN_SPREAD)
    # Both classes have the same total weight; the sum of all weights is the number of clips.
    balance = np.where(fake, 0.5 / examples.weight[fake].sum(), 0.5 / examples.weight[~fake].sum())
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
    regression.fit((features - mean) / spread, fake, balance * examples.weight * examples.weight.sum())
    weights = regression.coef_[0] / spread
    return TemporalClassifier(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        bias=float(regression.intercept_[0] - weights @ mean),
        max_logit=UNLIMITED,
        window=window,
    )


def _cross_validated(clips: ClipExamples, window: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each video's mean logit by classifiers fitted without its group, and its label."""
    logits = np.empty(len(clips.fake))
    unchanged = clips.unchanged()
    folds = GroupKFold(min(FOLDS, len(set(clips.groups.tolist()))))
    for fitted, held_out in folds.split(unchanged, groups=clips.groups):
        if len(set(clips.fake[fitted].tolist())) < 2:
            raise TemporalClassifierError(
                "the temporal classifier needs real and fake clips in most of the groups; give more clips"
            )
        mask = np.isin(np.arange(len(unchanged)), fitted)
        logits[held_out] = _fit(clips.of_clips(mask), window).logits(unchanged[held_out])
    videos = [clips.videos == name for name in sorted(set(clips.videos.tolist()))]
    return np.array([logits[own].mean() for own in videos]), np.array([clips.fake[own][0] for own in videos])
