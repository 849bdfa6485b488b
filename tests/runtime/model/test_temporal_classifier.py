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
    NUM_STANDARDISED,
    QUANTILES,
    TemporalClassifier,
    read_temporal_classifier,
    temporal_features,
    window_changes,
    write_temporal_classifier,
)
from streams.features.change_coupling import COARSE_RING
from streams.features.frame_changes import NUM_CHANGES
from streams.features.temporal_residuals import LAG, NUM_RATIOS
from tests.support.temporal import random_windows as windows

RNG = np.random.default_rng(0)
CLASSIFIER = TemporalClassifier(
    centre=tuple(RNG.normal(0, 1, NUM_STANDARDISED).tolist()),
    scale=tuple(RNG.uniform(0.5, 2, NUM_STANDARDISED).tolist()),
    weights=tuple(RNG.normal(0, 0.1, NUM_FEATURES).tolist()),
    bias=0.3,
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
    weights = np.asarray(CLASSIFIER.weights)
    expected = CLASSIFIER.bias + weights[:NUM_MEASURES] @ measures + ring * weights[NUM_MEASURES:] @ measures
    held = CLASSIFIER.max_logit * np.tanh(expected / CLASSIFIER.max_logit)
    assert CLASSIFIER.logits(window)[0] == pytest.approx(held, abs=1e-4)


def test_logits_stay_below_the_limit() -> None:
    """Large weights move the logit to the limit; far below the limit it is unchanged."""
    large = replace(CLASSIFIER, weights=tuple(1e6 * weight for weight in CLASSIFIER.weights))
    assert np.abs(large.logits(windows(20, 16))) == pytest.approx(np.full(20, CLASSIFIER.max_logit))
    small = replace(CLASSIFIER, max_logit=1e9)
    features = temporal_features(windows(3, 16), np.asarray(CLASSIFIER.centre), np.asarray(CLASSIFIER.scale))
    plain = features @ np.asarray(CLASSIFIER.weights) + CLASSIFIER.bias
    assert small.logits(windows(3, 16)) == pytest.approx(plain, abs=1e-4)


def test_comparisons_with_samples_before_the_window_are_ignored() -> None:
    """They may hold any value, NaN included."""
    window = windows(3, 8)
    cut = window.copy()
    cut[:, :LAG, HALF:NUM_RATIOS] = np.nan
    np.testing.assert_array_equal(CLASSIFIER.logits(window), CLASSIFIER.logits(cut))
    assert np.isfinite(CLASSIFIER.logits(cut)).all()


def test_missing_residuals_are_left_out() -> None:
    """NaN does not count in a quantile; a residual that is always NaN counts as the mean in training."""
    centre, scale = np.zeros(NUM_STANDARDISED), np.ones(NUM_STANDARDISED)
    window = windows(1, 16)
    window[0, 3:, 5] = np.nan
    window[0, :, 7] = np.nan
    window[0, :, NUM_RATIOS:] = np.nan
    measures, products = np.split(temporal_features(window, centre, scale)[0], 2)
    assert (products == 0).all()
    quantiles, changes = np.split(measures, [NUM_MEASURES - NUM_CHANGES])
    assert (changes == 0).all()
    features = quantiles.reshape(2, len(QUANTILES), HALF)[0]
    assert features[:, 5] == pytest.approx(np.quantile(window[0, :3, 5], QUANTILES), abs=1e-6)
    assert features[:, 7] == pytest.approx(np.zeros(3))


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
        ({"weights": [1.0]}, f"weights must have {NUM_FEATURES} values"),
        ({"bias": float("nan")}, "JSON is malformed"),
        ({"max_logit": 0}, "max_logit must be above 0"),
        ({"window": 2}, f"window must be at least {MIN_SAMPLES}"),
        ({"centre": None}, "Expected `array`, got `null` - at `$.centre`"),
        ({"bias": "much"}, "Expected `float`, got `str`"),
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
    with pytest.raises(ValueError, match="must be finite"):
        replace(CLASSIFIER, bias=float("inf"))
