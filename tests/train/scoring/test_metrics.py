"""What a measure says is checked on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from train.scoring.metrics import (
    accuracy_at,
    auc,
    average_precision,
    balanced_accuracy_at,
    bootstrap,
    bootstrap_difference,
    equal_error_rate,
    expected_calibration_error,
    reliability,
)


def test_auc_counts_pairs_in_order() -> None:
    """The AUC is the share of (real, fake) pairs in the right order, a tie counting half."""
    fake = [0, 0, 1, 1, 1]
    score = [0.1, 0.4, 0.4, 0.3, 0.9]
    # Pairs: against 0.1 all three right; against 0.4 a tie, a miss, a hit.
    assert auc(fake, score) == pytest.approx((3 + 0.5 + 0 + 1) / 6)


def test_auc_is_on_scores_not_on_decisions() -> None:
    """A detector whose scores are all below a half can still rank perfectly."""
    assert auc([0, 0, 1, 1], [0.01, 0.02, 0.03, 0.04]) == 1.0


def test_a_weight_acts_as_copies() -> None:
    """A weight of two measures as the clip twice over."""
    rng = np.random.default_rng(3)
    fake, score = rng.integers(0, 2, 40), rng.random(40)
    weight = rng.integers(0, 3, 40)
    copies = np.repeat(np.arange(40), weight)
    for metric in (auc, average_precision, equal_error_rate, accuracy_at(0.4), balanced_accuracy_at(0.4)):
        assert metric(fake, score, weight) == pytest.approx(metric(fake[copies], score[copies], None))


def test_one_class_is_undefined_not_perfect() -> None:
    """Where only one class is there, nothing is claimed."""
    for metric in (auc, average_precision, equal_error_rate, balanced_accuracy_at(0.5)):
        assert math.isnan(metric([1, 1], [0.2, 0.9], None))
        assert math.isnan(metric([1, 0], [0.2, 0.9], [1, 0]))
    assert math.isnan(expected_calibration_error([1, 1], [0.2, 0.9]))
    assert math.isnan(expected_calibration_error([], []))


def test_equal_error_rate_of_known_overlap() -> None:
    """Ten of each class with one on the wrong side give a tenth; a perfect and an inverted one 0 and 1."""
    real = [*range(9), 20.5]
    fake = [*range(20, 29), 8.5]
    truth = [0] * 10 + [1] * 10
    assert equal_error_rate(truth, real + fake) == pytest.approx(0.1)
    assert equal_error_rate([0, 0, 1, 1], [1, 2, 3, 4]) == 0.0
    assert equal_error_rate([0, 0, 1, 1], [3, 4, 1, 2]) == pytest.approx(1.0)
    assert equal_error_rate([0, 1], [5, 5]) == pytest.approx(0.5)


def test_accuracy_and_balanced_accuracy_differ_on_an_unequal_set() -> None:
    """Calling everything fake is right 9 times in 10 and balanced a coin toss."""
    fake, score = [1] * 9 + [0], [0.9] * 10
    assert accuracy_at(0.5)(fake, score, None) == pytest.approx(0.9)
    assert balanced_accuracy_at(0.5)(fake, score, None) == pytest.approx(0.5)


def test_calibration_error_of_honest_and_boastful_predictions() -> None:
    """Predictions of 0.75 that hold three times in four have no error; called 0.95 they are off by 0.2."""
    fake = [1, 1, 1, 0, 0, 0, 0, 1]
    honest = [0.75] * 4 + [0.25] * 4
    boastful = [0.95] * 4 + [0.05] * 4
    assert expected_calibration_error(fake, honest) == pytest.approx(0.0)
    assert expected_calibration_error(fake, boastful) == pytest.approx(0.2)


def test_calibration_is_measured_at_equal_priors() -> None:
    """More forgeries in a set do not make a prediction that is right at equal priors look wrong."""
    fake = [1] * 300 + [1] * 100 + [0] * 25 + [0] * 75
    p_fake = [0.75] * 300 + [0.25] * 100 + [0.75] * 25 + [0.25] * 75
    assert expected_calibration_error(fake, p_fake) == pytest.approx(0.0)
    assert expected_calibration_error(fake, p_fake, balanced=False) > 0.1


def test_reliability_bins_hold_everything() -> None:
    """Every score falls in a bin, the ends 0 and 1 included."""
    found = reliability([0, 1, 0, 1], [0.0, 1.0, 0.55, 0.55])
    assert found.count.sum() == 4
    assert found.weight.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        reliability([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match="one class"):
        reliability([1, 1], [0.5, 0.5])


def test_bootstrap_is_repeatable_and_holds_the_value() -> None:
    """The same seed gives the same interval, and the interval lies around the value."""
    rng = np.random.default_rng(0)
    fake = np.arange(200) % 2
    score = fake + rng.normal(0, 1, 200)
    groups = [str(i // 4) for i in range(200)]
    first = bootstrap(auc, fake, score, groups, replicates=200, seed=5)
    again = bootstrap(auc, fake, score, groups, replicates=200, seed=5)
    assert first == again
    assert first.low < first.value < first.high
    assert first.groups == 50


def test_clips_that_belong_together_widen_the_interval() -> None:
    """Ten copies of each video do not count as ten videos."""
    rng = np.random.default_rng(1)
    fake = np.arange(30) % 2
    score = fake + rng.normal(0, 1.5, 30)
    once = bootstrap(auc, fake, score, [str(i) for i in range(30)], replicates=300)
    fake10, score10 = np.repeat(fake, 10), np.repeat(score, 10)
    together = bootstrap(auc, fake10, score10, [str(i // 10) for i in range(300)], replicates=300)
    apart = bootstrap(auc, fake10, score10, [str(i) for i in range(300)], replicates=300)
    assert together.high - together.low == pytest.approx(once.high - once.low)
    assert apart.high - apart.low < 0.6 * (together.high - together.low)


def test_no_interval_from_one_group() -> None:
    """A single group says nothing about another, so no interval is given."""
    found = bootstrap(auc, [0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], ["a"] * 4)
    assert found.value == 1.0
    assert math.isnan(found.low)
    assert str(found) == "1.000 (no interval)"


def test_no_interval_where_most_draws_lack_a_class() -> None:
    """Draws that lack a class are left out; without enough of the others there is no interval."""
    fake = [0] + [1] * 30
    score = list(np.linspace(0, 1, 31))
    groups = [str(i) for i in range(31)]
    found = bootstrap(auc, fake, score, groups, replicates=400)
    # About 63 % of the draws hold the one real: just enough.
    assert not math.isnan(found.low)
    one_pair = bootstrap(auc, [0, 1], [0.0, 1.0], ["a", "b"], replicates=2000)
    # Both groups are drawn in half of the draws only; which side of half is chance, but the value stands.
    assert one_pair.value == 1.0
    only_fakes = bootstrap(auc, [1, 1], [0.0, 1.0], ["a", "b"])
    assert str(only_fakes) == "n/a"


def test_difference_of_equal_scores_is_zero_with_no_width() -> None:
    """Measured on the same draws, a model compared with itself differs by nothing."""
    rng = np.random.default_rng(2)
    fake, score = np.arange(60) % 2, rng.random(60)
    groups = [str(i // 2) for i in range(60)]
    found = bootstrap_difference(auc, fake, score, score, groups, replicates=100)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_difference_shows_the_better_scores() -> None:
    """Scores that follow the truth beat noise by an interval above zero."""
    rng = np.random.default_rng(2)
    fake = np.arange(200) % 2
    good, noise = fake + rng.normal(0, 0.5, 200), rng.random(200)
    found = bootstrap_difference(auc, fake, good, noise, [str(i) for i in range(200)], replicates=200)
    assert found.low > 0.2


def test_a_score_that_is_no_number_is_refused() -> None:
    """A nan is an error to be found, not a score."""
    with pytest.raises(ValueError, match="finite"):
        auc([0, 1], [0.1, math.nan])
    with pytest.raises(ValueError, match="one length"):
        auc([0, 1], [0.1])
