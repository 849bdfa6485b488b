"""Bootstrap intervals are repeatable and drawn by group."""

from __future__ import annotations

import math

import numpy as np
import pytest

from train.scoring.bootstrap import BootstrapConfig, bootstrap, bootstrap_difference
from train.scoring.metrics import auc


def test_bootstrap_is_repeatable_and_contains_the_value() -> None:
    """The same seed gives the same interval, and the interval contains the value."""
    rng = np.random.default_rng(0)
    fake = np.arange(200) % 2
    score = fake + rng.normal(0, 1, 200)
    groups = [str(i // 4) for i in range(200)]
    first = bootstrap(auc, fake, score, groups, replicates=200, seed=5)
    again = bootstrap(auc, fake, score, groups, replicates=200, seed=5)
    assert first == again
    assert first.low < first.value < first.high
    assert first.groups == 50


def test_clips_of_one_group_widen_the_interval() -> None:
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
    """With a single group there is no interval."""
    found = bootstrap(auc, [0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], ["a"] * 4)
    assert found.value == 1.0
    assert math.isnan(found.low)
    assert str(found) == "1.000 (no interval)"


def test_no_interval_where_most_draws_lack_a_class() -> None:
    """Draws that lack a class are left out; without enough other draws there is no interval."""
    fake = [0] + [1] * 30
    score = list(np.linspace(0, 1, 31))
    groups = [str(i) for i in range(31)]
    found = bootstrap(auc, fake, score, groups, replicates=400)
    # About 63 % of the draws contain the only real score: enough.
    assert not math.isnan(found.low)
    one_pair = bootstrap(auc, [0, 1], [0.0, 1.0], ["a", "b"], replicates=2000)
    # About half of the draws contain both groups, so the interval may be missing; the value is defined.
    assert one_pair.value == 1.0
    only_fakes = bootstrap(auc, [1, 1], [0.0, 1.0], ["a", "b"])
    assert str(only_fakes) == "n/a"


def test_difference_of_equal_scores_is_exactly_zero() -> None:
    """Both scores are measured on the same draws, so equal scores give an interval of width 0."""
    rng = np.random.default_rng(2)
    fake, score = np.arange(60) % 2, rng.random(60)
    groups = [str(i // 2) for i in range(60)]
    found = bootstrap_difference(auc, fake, score, score, groups, replicates=100)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_difference_shows_the_better_scores() -> None:
    """Scores that follow the labels beat noise by an interval above zero."""
    rng = np.random.default_rng(2)
    fake = np.arange(200) % 2
    good, noise = fake + rng.normal(0, 0.5, 200), rng.random(200)
    found = bootstrap_difference(auc, fake, good, noise, [str(i) for i in range(200)], replicates=200)
    assert found.low > 0.2


def test_at_least_one_draw_is_required() -> None:
    """A number of draws below 1 is refused."""
    with pytest.raises(ValueError, match="replicates"):
        BootstrapConfig(replicates=0)
