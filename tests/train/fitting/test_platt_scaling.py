"""Platt scaling and thresholds, on scores with known probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from train.fitting.platt_scaling import (
    CalibrationError,
    fit_platt,
    threshold_at_fpr,
    with_thresholds,
)
from train.scoring.metrics import auc, expected_calibration_error


def drawn(
    count: int, *, scale: float, offset: float, fake_share: float = 0.5, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draw logits with a known calibration at equal priors: normal scores, whose log-odds are linear."""
    rng = np.random.default_rng(seed)
    fake = rng.random(count) < fake_share
    # Two unit normals at +-1 have log-odds of exactly 2x at equal priors.
    odds = 2 * (rng.normal(0, 1, count) + np.where(fake, 1, -1))
    return odds * scale - offset, fake


@pytest.mark.parametrize("fake_share", [0.5, 0.9])
def test_scale_and_offset_are_recovered_whatever_the_class_balance(fake_share: float) -> None:
    """The fit assumes equal priors, on a balanced set and on one with nine fakes in ten."""
    logits, fake = drawn(40_000, scale=2.5, offset=0.7, fake_share=fake_share)
    found = fit_platt(logits, fake)
    assert found.scale == pytest.approx(2.5, rel=0.06)
    assert found.offset == pytest.approx(0.7, abs=0.15)


def test_calibration_lowers_the_error_and_keeps_the_ranking() -> None:
    """An over-confident model has a lower calibration error afterwards, and the same AUC."""
    logits, fake = drawn(6_000, scale=4, offset=-1)
    found = fit_platt(logits[:3000], fake[:3000])
    held_logits, held_fake = logits[3000:], fake[3000:]
    before = [Calibration().p_fake(float(z)) for z in held_logits]
    after = [found.p_fake(float(z)) for z in held_logits]
    assert expected_calibration_error(held_fake, before) > 0.05
    assert expected_calibration_error(held_fake, after) < 0.04
    assert auc(held_fake, after) == pytest.approx(auc(held_fake, held_logits), abs=1e-6)


def test_small_separable_set_does_not_give_certainty() -> None:
    """With four perfectly ranked clips the probabilities stay away from 0 and 1."""
    found = fit_platt([-1.0, -0.8, 0.9, 1.1], [0, 0, 1, 1])
    assert 0.6 < found.p_fake(1.1) < 0.95
    assert 0.05 < found.p_fake(-1.0) < 0.4


def test_a_weight_counts_like_copies() -> None:
    """A hundred windows with a weight of 0.01 count like one window."""
    logits, fake = drawn(400, scale=1.5, offset=0.3)
    once = fit_platt(logits, fake)
    times = np.where(np.arange(400) == 7, 100, 1)
    many = fit_platt(np.repeat(logits, times), np.repeat(fake, times), np.repeat(1 / times, times))
    assert many.scale == pytest.approx(once.scale, rel=1e-3)
    assert many.offset == pytest.approx(once.offset, abs=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e2])
def test_logits_of_any_scale_are_fitted(factor: float) -> None:
    """The scale follows the scale of the logits, within its range."""
    logits, fake = drawn(2_000, scale=1, offset=0)
    found = fit_platt(logits * factor, fake)
    assert found.scale == pytest.approx(min(max(factor, 0.05), 50.0), rel=0.15)


def test_scores_that_cannot_be_calibrated_are_errors() -> None:
    """One class, nan, constant and inverted scores each give an error with advice."""
    for logits, fake, message in (
        ([1.0, 2.0], [1, 1], "only one class"),
        ([1.0, math.nan], [0, 1], "not a finite number"),
        ([1.0, 1.0], [0, 1], "all scores are equal"),
        ([1.0, -1.0, 2.0, -2.0], [0, 1, 0, 1], "fakes do not have higher logits"),
    ):
        with pytest.raises(CalibrationError, match=message) as caught:
            fit_platt(logits, fake)
        assert "\n" not in str(caught.value)


def test_threshold_has_at_most_the_given_fpr() -> None:
    """Of a thousand real scores ten reach the threshold of 1 %; ties do not exceed the rate."""
    scores = np.random.default_rng(0).permutation(np.arange(1000) / 1000)
    threshold = threshold_at_fpr(scores, 0.01)
    assert int((scores >= threshold).sum()) == 10
    assert int((np.array([0.2, 0.9, 0.9, 0.9]) >= threshold_at_fpr([0.2, 0.9, 0.9, 0.9], 0.3)).sum()) == 0
    with pytest.raises(CalibrationError, match="no score"):
        threshold_at_fpr([], 0.01)


def test_thresholds_keep_their_error_rates_and_widen_for_a_weak_model() -> None:
    """Few scores get the wrong verdict, real ones half as many; a weak model is `uncertain` more often."""
    widths = []
    for scale, overlap in ((1.0, 3.0), (1.0, 0.5)):
        rng = np.random.default_rng(0)
        fake = np.arange(4000) % 2 == 1
        logits = rng.normal(0, 1, 4000) + np.where(fake, overlap, -overlap) * scale
        found = with_thresholds(fit_platt(logits, fake), logits, fake)
        p_fake = np.array([found.p_fake(float(z)) for z in logits])
        # The score at the threshold may be rounded either way.
        assert np.sum(p_fake[~fake] >= found.threshold_fake) <= 0.05 * 2000 + 1
        assert np.mean(p_fake[fake] <= found.threshold_real) <= 0.1
        assert found.threshold_real <= 0.5 <= found.threshold_fake
        assert found.threshold_fpr1 is not None
        assert np.mean(p_fake[~fake] >= found.threshold_fpr1) == pytest.approx(0.01, abs=1e-3)
        widths.append(np.mean((p_fake < found.threshold_fake) & (p_fake > found.threshold_real)))
    assert widths[0] < 0.02 < widths[1]


def test_no_threshold_at_one_percent_fpr_from_fewer_than_a_hundred_real_scores() -> None:
    """With 99 real scores the threshold at 1 % FPR stays undefined."""
    logits, fake = drawn(198, scale=1, offset=0)
    fake = np.arange(198) % 2 == 1
    found = with_thresholds(Calibration(), logits, fake)
    assert found.threshold_fpr1 is None
    with pytest.raises(ValueError, match="max_fnr"):
        with_thresholds(Calibration(), logits, fake, max_fnr=0.7)
