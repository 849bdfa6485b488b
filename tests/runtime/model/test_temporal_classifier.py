"""Temporal classifier: its logit, and reading and writing it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.model.temporal_classifier import (
    MAX_DEVIATION,
    MIN_SAMPLES,
    NUM_FEATURES,
    NUM_MEASURES,
    NUM_PRODUCTS,
    NUM_SAMPLE_FEATURES,
    NUM_STANDARDISED,
    QUANTILES,
    SAMPLE_FEATURES,
    Regression,
    TemporalClassifier,
    read_temporal_classifier,
    temporal_features,
    window_changes,
    write_temporal_classifier,
)
from streams.features.change_coupling import COARSE_RING
from streams.features.frame_changes import NUM_CHANGES
from streams.features.temporal_residuals import LAG, NUM_RATIOS, without_frames
from tests.support.temporal import random_windows as windows

RNG = np.random.default_rng(0)


def random_regression(length: int, *, bias: float) -> Regression:
    means, weights = RNG.normal(0, 0.1, (2, length)).tolist()
    return Regression(means=tuple(means), weights=tuple(weights), bias=bias)


CLASSIFIER = TemporalClassifier(
    centre=tuple(RNG.normal(0, 1, NUM_STANDARDISED).tolist()),
    scale=tuple(RNG.uniform(0.5, 2, NUM_STANDARDISED).tolist()),
    with_frames=random_regression(NUM_FEATURES, bias=0.3),
    without_frames=random_regression(NUM_SAMPLE_FEATURES, bias=-0.2),
    max_logit=5.0,
    window=16,
)
HALF = NUM_RATIOS // 2


def test_the_logit_is_the_weighted_sum_of_measures_and_products() -> None:
    """The logit equals the definition, written out value by value."""
    window = windows(1, 16)
    measures = np.zeros(NUM_MEASURES)
    for number, residuals in enumerate((range(HALF), range(HALF, NUM_RATIOS))):
        for q, quantile in enumerate(QUANTILES):
            for i in residuals:
                level = np.clip(
                    (window[0, number * LAG :, i] - CLASSIFIER.centre[i]) / CLASSIFIER.scale[i],
                    -MAX_DEVIATION,
                    MAX_DEVIATION,
                )
                at = number * len(QUANTILES) * HALF + q * HALF + i % HALF
                measures[at] = np.quantile(level, quantile)
    for i, value in enumerate(window_changes(window)[0], NUM_RATIOS):
        level = np.clip((value - CLASSIFIER.centre[i]) / CLASSIFIER.scale[i], -MAX_DEVIATION, MAX_DEVIATION)
        measures[NUM_MEASURES - NUM_CHANGES + i - NUM_RATIOS] = level
    ring = measures[NUM_MEASURES - NUM_CHANGES + COARSE_RING]
    regression = CLASSIFIER.with_frames
    deviations = np.concatenate([measures, ring * measures[:NUM_PRODUCTS]]) - regression.means
    expected = regression.bias + np.asarray(regression.weights) @ deviations
    held = CLASSIFIER.max_logit * np.tanh(expected / CLASSIFIER.max_logit)
    assert CLASSIFIER.logits(window)[0] == pytest.approx(held, abs=1e-4)


def test_logits_stay_below_the_limit() -> None:
    """Large weights move the logit to the limit; far below the limit it is unchanged."""
    large = replace(CLASSIFIER, with_frames=CLASSIFIER.with_frames.scaled(1e6, 0.0))
    assert np.abs(large.logits(windows(20, 16))) == pytest.approx(np.full(20, CLASSIFIER.max_logit))
    small = replace(CLASSIFIER, max_logit=1e9)
    features = temporal_features(windows(3, 16), np.asarray(CLASSIFIER.centre), np.asarray(CLASSIFIER.scale))
    assert small.logits(windows(3, 16)) == pytest.approx(CLASSIFIER.with_frames.scores(features), abs=1e-4)


def test_comparisons_with_samples_before_the_window_are_ignored() -> None:
    """They may hold any value, NaN included."""
    window = windows(3, 8)
    cut = window.copy()
    cut[:, :LAG, HALF:NUM_RATIOS] = np.nan
    np.testing.assert_array_equal(CLASSIFIER.logits(window), CLASSIFIER.logits(cut))
    assert np.isfinite(CLASSIFIER.logits(cut)).all()


def test_missing_residuals_are_left_out() -> None:
    """NaN does not count in a quantile; a feature without any value counts as its mean in training."""
    centre, scale = np.zeros(NUM_STANDARDISED), np.ones(NUM_STANDARDISED)
    window = windows(1, 16)
    window[0, 3:, 5] = np.nan
    window[0, :, 7] = np.nan
    window[0, :, NUM_RATIOS:] = np.nan
    features = temporal_features(window, centre, scale)
    measures, products = np.split(features[0], [NUM_MEASURES])
    assert np.isnan(products).all()
    quantiles, changes = np.split(measures, [NUM_MEASURES - NUM_CHANGES])
    assert np.isnan(changes).all()
    of_frames = quantiles.reshape(2, len(QUANTILES), HALF)[0]
    assert of_frames[:, 5] == pytest.approx(np.quantile(window[0, :3, 5], QUANTILES), abs=1e-6)
    assert np.isnan(of_frames[:, 7]).all()
    regression = CLASSIFIER.with_frames
    filled = np.where(np.isnan(features), regression.means, features)
    assert regression.scores(features) == pytest.approx(regression.scores(filled))


def test_windows_without_frames_between_the_samples_have_weights_of_their_own() -> None:
    """Each window is scored by the regression on the features that it has, whatever the others have."""
    window = windows(2, 16)
    window[1] = without_frames(window[1])
    features = temporal_features(window, np.asarray(CLASSIFIER.centre), np.asarray(CLASSIFIER.scale))
    known = np.flatnonzero(~np.isnan(features[1]))
    assert known.tolist() == list(range(*SAMPLE_FEATURES.indices(NUM_FEATURES)))
    small = replace(CLASSIFIER, max_logit=1e9)
    expected = [
        CLASSIFIER.with_frames.scores(features[:1])[0],
        CLASSIFIER.without_frames.scores(features[1:, SAMPLE_FEATURES])[0],
    ]
    assert small.logits(window) == pytest.approx(expected, abs=1e-4)


def test_a_window_in_which_nothing_can_be_compared_is_no_evidence() -> None:
    """The logit is 0, as where the face fills the frame and there are no surroundings."""
    assert CLASSIFIER.logits(np.full_like(windows(1, 16), np.nan)).tolist() == [0.0]


def test_short_windows_have_smaller_logits() -> None:
    """Equal quantiles of fewer samples give a smaller logit; two samples give 0."""
    same = np.repeat(windows(1, 1), 16, axis=1)
    logits = [float(CLASSIFIER.logits(same[:, :samples])[0]) for samples in (2, MIN_SAMPLES, 4, 9, 16)]
    assert logits[0] == 0.0
    assert np.all(np.diff(np.abs(logits)) > 0)
    assert logits[2] / logits[4] == pytest.approx((2 / 14) ** 0.5, rel=1e-5)


def test_extreme_residuals_are_clipped() -> None:
    """A standardised value is limited to `MAX_DEVIATION`, a product to its square."""
    centre, scale = np.full(NUM_STANDARDISED, -1e9), np.ones(NUM_STANDARDISED)
    features = temporal_features(windows(1, 16), centre, scale)
    assert features.shape == (1, NUM_FEATURES)
    assert (features[:, :NUM_MEASURES] == MAX_DEVIATION).all()
    assert (features[:, NUM_MEASURES:] == MAX_DEVIATION**2).all()


def test_an_empty_batch_has_no_logits() -> None:
    """No windows give an array of length 0."""
    assert CLASSIFIER.logits(windows(0, 16)).shape == (0,)


def test_reading_returns_what_was_written(tmp_path: Path) -> None:
    """All values are equal to the last digit."""
    write_temporal_classifier(tmp_path / "temporal.json", CLASSIFIER)
    assert read_temporal_classifier(tmp_path / "temporal.json") == CLASSIFIER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [0.0] * NUM_STANDARDISED}, "scale must be above 0"),
        (
            {"with_frames": {"means": [], "weights": [1.0], "bias": 0}},
            f"means must have {NUM_FEATURES} values",
        ),
        ({"without_frames": {"weights": [], "bias": 0}}, "missing required field `means`"),
        ({"max_logit": float("nan")}, "JSON is malformed"),
        ({"max_logit": 0}, "max_logit must be above 0"),
        ({"window": 2}, f"window must be at least {MIN_SAMPLES}"),
        ({"centre": None}, "Expected `array`, got `null` - at `$.centre`"),
        ({"max_logit": "much"}, "Expected `float`, got `str`"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """The error names the value."""
    path = tmp_path / "temporal.json"
    write_temporal_classifier(path, CLASSIFIER)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_temporal_classifier(path)


def test_other_json_is_refused(tmp_path: Path) -> None:
    """A list, an object without the values and text that is no JSON raise an error."""
    path = tmp_path / "temporal.json"
    for content in ("[]", "{}", "{"):
        path.write_text(content)
        with pytest.raises(ValueError, match="not a temporal classifier"):
            read_temporal_classifier(path)
    for name in ("with_frames", "without_frames"):
        with pytest.raises(ValueError, match="must be finite"):
            replace(CLASSIFIER, **{name: replace(getattr(CLASSIFIER, name), bias=float("inf"))})
