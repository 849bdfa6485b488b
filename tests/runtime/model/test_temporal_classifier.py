"""The judge of flicker: what it adds to a window's logit, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.model.temporal_classifier import (
    LEAST,
    MAX_LEVEL,
    QUANTILES,
    TEMPORAL_FEATURES,
    TemporalClassifier,
    read_temporal_classifier,
    temporal_features,
    write_temporal_classifier,
)
from streams.features.temporal_residuals import NUM_RESIDUALS

RNG = np.random.default_rng(0)
JUDGE = TemporalClassifier(
    centre=tuple(RNG.normal(0, 1, NUM_RESIDUALS).tolist()),
    scale=tuple(RNG.uniform(0.5, 2, NUM_RESIDUALS).tolist()),
    weights=tuple(RNG.normal(0, 0.1, TEMPORAL_FEATURES).tolist()),
    bias=0.3,
    max_logit=5.0,
    window=16,
)
HALF = NUM_RESIDUALS // 2


def windows(count: int, samples: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, samples, NUM_RESIDUALS)).astype(np.float32)


def test_the_logit_is_the_weighed_quantiles() -> None:
    """The definition, written out measure by measure."""
    window = windows(1, 16)
    expected = JUDGE.bias
    for lag, measures in ((1, range(HALF)), (2, range(HALF, NUM_RESIDUALS))):
        for q, quantile in enumerate(QUANTILES):
            for i in measures:
                level = np.clip(
                    (window[0, lag:, i] - JUDGE.centre[i]) / JUDGE.scale[i], -MAX_LEVEL, MAX_LEVEL
                )
                at = (lag - 1) * len(QUANTILES) * HALF + q * HALF + i % HALF
                expected += JUDGE.weights[at] * np.quantile(level, quantile)
    held = JUDGE.max_logit * np.tanh(expected / JUDGE.max_logit)
    assert JUDGE.logits(window)[0] == pytest.approx(held, abs=1e-4)


def test_no_window_is_surer_than_it_may_be() -> None:
    """Weights however large move the logit up to the limit, and small ones are left as they are."""
    large = replace(JUDGE, weights=tuple(1e6 * weight for weight in JUDGE.weights))
    assert np.abs(large.logits(windows(20, 16))) == pytest.approx(np.full(20, JUDGE.max_logit))
    small = replace(JUDGE, max_logit=1e9)
    told = temporal_features(windows(3, 16), np.asarray(JUDGE.centre), np.asarray(JUDGE.scale))
    plain = told @ np.asarray(JUDGE.weights) + JUDGE.bias
    assert small.logits(windows(3, 16)) == pytest.approx(plain, abs=1e-4)


def test_what_lies_before_a_window_does_not_count() -> None:
    """Rows that compare with crops before the window may hold anything, even what is not known."""
    window = windows(3, 8)
    cut = window.copy()
    cut[:, 0] = np.nan
    cut[:, 1, HALF:] = np.nan
    np.testing.assert_array_equal(JUDGE.logits(window), JUDGE.logits(cut))
    assert np.isfinite(JUDGE.logits(cut)).all()


def test_short_windows_count_for_less_and_the_shortest_for_nothing() -> None:
    """The same quantiles in fewer samples move the logit less, and two samples hold no second lag."""
    same = np.repeat(windows(1, 1), 16, axis=1)
    logits = [float(JUDGE.logits(same[:, :samples])[0]) for samples in (2, LEAST, 4, 9, 16)]
    assert logits[0] == 0.0
    assert np.all(np.diff(np.abs(logits)) > 0)
    assert logits[2] / logits[4] == pytest.approx((2 / 14) ** 0.5, rel=1e-5)


def test_what_is_like_nothing_in_training_is_held_back() -> None:
    """However wild a measure, it counts for so many deviations and no more."""
    wild = np.full((1, 16, NUM_RESIDUALS), 1e9, np.float32)
    told = temporal_features(wild, np.asarray(JUDGE.centre), np.asarray(JUDGE.scale))
    assert told.shape == (1, TEMPORAL_FEATURES)
    assert (told == MAX_LEVEL).all()


def test_no_window_gives_no_logit() -> None:
    """An empty batch is an answer, not an error."""
    assert JUDGE.logits(windows(0, 16)).shape == (0,)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Every digit survives."""
    write_temporal_classifier(tmp_path / "temporal.json", JUDGE)
    assert read_temporal_classifier(tmp_path / "temporal.json") == JUDGE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [0.0] * NUM_RESIDUALS}, "scale must be above 0"),
        ({"weights": [1.0]}, f"weights must have {TEMPORAL_FEATURES} values"),
        ({"bias": float("nan")}, "must be finite"),
        ({"max_logit": 0}, "surest must be above 0"),
        ({"window": 2}, f"window must be at least {LEAST}"),
        ({"centre": None}, "not a flicker judge"),
        ({"bias": "much"}, "could not convert"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A file that somebody wrote by hand fails with what is wrong in it."""
    path = tmp_path / "temporal.json"
    write_temporal_classifier(path, JUDGE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        read_temporal_classifier(path)


def test_another_json_is_no_judge(tmp_path: Path) -> None:
    """A list, or a judge without one of its values, is refused."""
    path = tmp_path / "temporal.json"
    for content in ("[]", "{}", "{"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"not a flicker judge|Expecting"):
            read_temporal_classifier(path)
    with pytest.raises(ValueError, match="bias"):
        replace(JUDGE, bias=float("inf"))
