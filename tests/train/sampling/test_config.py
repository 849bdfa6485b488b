"""Tests of the settings of batches."""

from __future__ import annotations

import pytest

from train.sampling.config import SamplingConfig


def test_two_processes_share_the_crops() -> None:
    """The crops of a stage are counted over all processes."""
    assert SamplingConfig(sizes=(32,), crops=(64,), batch_size=8).steps(2) == [32] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 10},
        {"crops": (1,)},
        {"crops": (16, 16)},
        {"synthetic_share": (0.5, 1.5)},
        {"set_weights": (1, 0)},
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    """Settings that disagree or would train nothing are refused at construction."""
    with pytest.raises(ValueError, match=r"batch_size|same number|train nothing|synthetic_share|set_weights"):
        SamplingConfig(**wrong)  # type: ignore[arg-type]
