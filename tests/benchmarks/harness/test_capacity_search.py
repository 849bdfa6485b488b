"""The search finds the limit with few measurements, from any start."""

from __future__ import annotations

import pytest

from benchmarks.harness.capacity_search import max_capacity


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 5, 8, 13, 16, 40])
@pytest.mark.parametrize("start", [1, 2, 7, 16])
def test_the_search_finds_the_limit(capacity: int, start: int) -> None:
    """Each count is measured at most once, and none above the limit."""
    measured: list[int] = []

    def sustains(count: int) -> bool:
        measured.append(count)
        return count <= capacity

    assert max_capacity(sustains, start=start, limit=16) == min(capacity, 16)
    assert len(measured) == len(set(measured))
    assert set(measured) <= set(range(1, 17))


def test_a_good_start_saves_measurements() -> None:
    """With a good start, one step at the capacity and one above confirm it."""
    measured: list[int] = []

    def sustains(count: int) -> bool:
        measured.append(count)
        return count <= 6

    max_capacity(sustains, start=6, limit=64)
    assert measured == [6, 7]


@pytest.mark.parametrize(("start", "limit"), [(0, 5), (1, 0)])
def test_counts_below_one_are_refused(start: int, limit: int) -> None:
    """Counts below 1 are an error."""
    with pytest.raises(ValueError, match="at least 1"):
        max_capacity(lambda count: True, start=start, limit=limit)
