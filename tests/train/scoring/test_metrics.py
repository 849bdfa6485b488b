"""Metrics on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from train.scoring.metrics import (
    accuracy_at,
    auc,
    average_precision,
    balanced_accuracy_at,
    equal_error_rate,
    expected_calibration_error,
    reliability,
)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    """The AUC is the share of (real, fake) pairs in the right order, a tie counting half."""
    fake = [0, 0, 1, 1, 1]
    score = [0.1, 0.4, 0.4, 0.3, 0.9]
    # Pairs: against 0.1 three ordered; against 0.4 one tie, one not ordered, one ordered.
    assert auc(fake, score) == pytest.approx((3 + 0.5 + 0 + 1) / 6)


def test_auc_does_not_depend_on_a_threshold() -> None:
    """Scores that are all below 0.5 can still rank perfectly."""
    assert auc([0, 0, 1, 1], [0.01, 0.02, 0.03, 0.04]) == 1.0


def test_weights_act_as_copies() -> None:
    """A weight of 2 gives the same metric as two copies of the score."""
    rng = np.random.default_rng(3)
    fake, score = rng.integers(0, 2, 40), rng.random(40)
    weight = rng.integers(0, 3, 40)
    copies = np.repeat(np.arange(40), weight)
    for metric in (auc, average_precision, equal_error_rate, accuracy_at(0.4), balanced_accuracy_at(0.4)):
        assert metric(fake, score, weight) == pytest.approx(metric(fake[copies], score[copies], None))


def test_metrics_of_one_class_are_undefined() -> None:
    """With only one class, metrics are nan."""
    for metric in (auc, average_precision, equal_error_rate, balanced_accuracy_at(0.5)):
        assert math.isnan(metric([1, 1], [0.2, 0.9], None))
        assert math.isnan(metric([1, 0], [0.2, 0.9], [1, 0]))
    assert math.isnan(expected_calibration_error([1, 1], [0.2, 0.9]))
    assert math.isnan(expected_calibration_error([], []))


def test_equal_error_rate_of_known_overlap() -> None:
    """One of ten on the wrong side in each class gives 0.1; perfect and inverted scores give 0 and 1."""
    real = [*range(9), 20.5]
    fake = [*range(20, 29), 8.5]
    truth = [0] * 10 + [1] * 10
    assert equal_error_rate(truth, real + fake) == pytest.approx(0.1)
    assert equal_error_rate([0, 0, 1, 1], [1, 2, 3, 4]) == 0.0
    assert equal_error_rate([0, 0, 1, 1], [3, 4, 1, 2]) == pytest.approx(1.0)
    assert equal_error_rate([0, 1], [5, 5]) == pytest.approx(0.5)


def test_balanced_accuracy_ignores_the_class_balance() -> None:
    """Predicting fake for all of nine fakes and one real: accuracy 0.9, balanced accuracy 0.5."""
    fake, score = [1] * 9 + [0], [0.9] * 10
    assert accuracy_at(0.5)(fake, score, None) == pytest.approx(0.9)
    assert balanced_accuracy_at(0.5)(fake, score, None) == pytest.approx(0.5)


def test_calibration_error_of_calibrated_and_over_confident_predictions() -> None:
    """Predictions of 0.75 that are right three times in four have no error; at 0.95 the error is 0.2."""
    fake = [1, 1, 1, 0, 0, 0, 0, 1]
    calibrated = [0.75] * 4 + [0.25] * 4
    over_confident = [0.95] * 4 + [0.05] * 4
    assert expected_calibration_error(fake, calibrated) == pytest.approx(0.0)
    assert expected_calibration_error(fake, over_confident) == pytest.approx(0.2)


def test_calibration_error_assumes_equal_priors() -> None:
    """A data set with more fakes does not raise the error of predictions calibrated at equal priors."""
    fake = [1] * 300 + [1] * 100 + [0] * 25 + [0] * 75
    p_fake = [0.75] * 300 + [0.25] * 100 + [0.75] * 25 + [0.25] * 75
    assert expected_calibration_error(fake, p_fake) == pytest.approx(0.0)
    assert expected_calibration_error(fake, p_fake, balanced=False) > 0.1


def test_reliability_bins_contain_every_score() -> None:
    """Every score falls into a bin, 0 and 1 included; invalid input is refused."""
    diagram = reliability([0, 1, 0, 1], [0.0, 1.0, 0.55, 0.55])
    assert diagram.count.sum() == 4
    assert diagram.weight.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        reliability([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match="one class"):
        reliability([1, 1], [0.5, 0.5])


def test_invalid_scores_are_refused() -> None:
    """nan scores and arrays of different lengths are errors."""
    with pytest.raises(ValueError, match="finite"):
        auc([0, 1], [0.1, math.nan])
    with pytest.raises(ValueError, match="same length"):
        auc([0, 1], [0.1])
