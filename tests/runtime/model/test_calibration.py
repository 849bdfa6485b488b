"""Tests of the calibration."""

from __future__ import annotations

import math

import pytest

from runtime.model.calibration import Calibration


def test_bias_is_added_before_the_division() -> None:
    """The calibrated probability is sigmoid((logit + offset) / scale)."""
    calibration = Calibration(scale=2.0, offset=-1.0)
    assert calibration.p_fake(3.0) == pytest.approx(1 / (1 + math.exp(-(3.0 - 1.0) / 2.0)))
    assert calibration.p_fake(1.0) == 0.5
    assert Calibration().p_fake(9.0) == pytest.approx(0.99988, abs=1e-5)


def test_large_logits_are_valid() -> None:
    """Logits of 1e6 and -1e6 give 1 and 0, without an overflow."""
    assert Calibration().p_fake(1e6) == 1.0
    assert Calibration().p_fake(-1e6) == 0.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_logit_that_is_not_finite_is_an_error(logit: float) -> None:
    """NaN and infinite logits raise an error instead of giving a probability."""
    with pytest.raises(ValueError, match="logit must be finite"):
        Calibration().p_fake(logit)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"offset": math.inf}, "offset"),
        ({"threshold_real": 0.7}, "thresholds"),
        ({"threshold_fake": 1.2}, "thresholds"),
        ({"hysteresis": 0.5}, "hysteresis"),
        ({"threshold_fpr1": 2.0}, "threshold_fpr1"),
    ],
)
def test_values_are_checked(values: dict[str, float], words: str) -> None:
    """A value out of range raises an error on construction."""
    with pytest.raises(ValueError, match=words):
        Calibration(**values)
