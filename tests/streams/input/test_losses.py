"""Tests of the counts of lost samples."""

from __future__ import annotations

import pytest

from streams.input.losses import Losses, LossMeter


def test_the_total_is_the_sum_over_all_causes() -> None:
    """Every cause counts."""
    assert Losses(queue=1, skipped=20, corrupt=300, refused=4000).total == 4321


@pytest.mark.parametrize(
    ("interval", "skipped", "corrupt", "expected"),
    [
        (1.0, 5, 5, (0, 0)),  # the next frame was in time
        (4.0, 0, 0, (0, 0)),  # a hole in the source
        (4.0, 9, 0, (3, 0)),
        (4.0, 0, 9, (0, 3)),
        (4.0, 1, 9, (1, 2)),
        (9000.0, 0, 1, (0, 1)),  # media time jumped where one frame was damaged
    ],
)
def test_lost_samples_are_inferred_from_intervals(
    interval: float, skipped: int, corrupt: int, expected: tuple[int, int]
) -> None:
    """Samples are lost only where packets were skipped or damaged, at most one for each."""
    meter = LossMeter(8.0)
    meter.sampled(10.0, connection=1, timeline=0, skipped=2, corrupt=3)
    meter.sampled(10.0 + interval / 8, connection=1, timeline=0, skipped=2 + skipped, corrupt=3 + corrupt)
    assert (meter.skipped, meter.corrupt) == expected


def test_nothing_is_lost_across_connections_and_jumps() -> None:
    """Their intervals mean nothing."""
    meter = LossMeter(8.0)
    meter.sampled(10.0, connection=1, timeline=0, skipped=0, corrupt=0)
    meter.sampled(20.0, connection=2, timeline=0, skipped=9, corrupt=9)
    meter.sampled(30.0, connection=2, timeline=1, skipped=99, corrupt=99)
    assert (meter.skipped, meter.corrupt) == (0, 0)


def test_a_connection_that_ends_in_damaged_data_counts_it() -> None:
    """Nothing follows the last sample; the time since then counts, once."""
    meter = LossMeter(8.0)
    meter.ended(10.0, skipped=9, corrupt=9)
    assert (meter.skipped, meter.corrupt) == (0, 0)
    meter.sampled(10.0, connection=1, timeline=0, skipped=0, corrupt=1)
    meter.ended(10.0, skipped=0, corrupt=251)
    meter.ended(10.0, skipped=0, corrupt=251)
    assert (meter.skipped, meter.corrupt) == (0, 79)
