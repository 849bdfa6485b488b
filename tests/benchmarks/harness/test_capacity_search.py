"""The max_capacity finds the limit with few measurements, wherever it starts."""

from __future__ import annotations

import pytest

from benchmarks.harness.capacity_search import max_capacity


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 8, 13, 16, 40])
@pytest.mark.parametrize("start", [1, 2, 7, 16])
def test_it_finds_the_limit(limit: int, start: int) -> None:
    """Each count is measured once at most, and none beyond what was allowed."""
    measured: list[int] = []

    def holds(count: int) -> bool:
        measured.append(count)
        return count <= limit

    assert max_capacity(holds, start=start, most=16) == min(limit, 16)
    assert len(measured) == len(set(measured))
    assert set(measured) <= set(range(1, 17))


def test_a_good_start_saves_measurements() -> None:
    """Where the limit is known already, one step at it and one beyond it confirm it."""
    measured: list[int] = []

    def holds(count: int) -> bool:
        measured.append(count)
        return count <= 6

    max_capacity(holds, start=6, most=64)
    assert measured == [6, 7]


@pytest.mark.parametrize(("start", "most"), [(0, 5), (1, 0)])
def test_impossible_counts(start: int, most: int) -> None:
    """No stream at all is nothing to measure."""
    with pytest.raises(ValueError, match="at least 1"):
        max_capacity(lambda count: True, start=start, most=most)
