"""Search for the largest sustainable count: growing steps up to the first failure, then bisection. No I/O."""

from __future__ import annotations

from collections.abc import Callable


def max_capacity(sustains: Callable[[int], bool], *, start: int = 1, limit: int) -> int:
    """Return the largest count that is sustained, assuming that every smaller count is sustained too.

    Args:
        sustains: Measures one count; called at most once for each count.
        start: First count to measure; the nearer to the result, the fewer measurements.
        limit: Largest count to measure.

    Returns:
        0..limit; 0 if not even a count of 1 is sustained.

    Raises:
        ValueError: `limit` or `start` is below 1.
    """
    if limit < 1 or start < 1:
        raise ValueError(f"start and limit must be at least 1, not {start}, {limit}")
    sustained, failed = 0, limit + 1
    count, step = min(start, limit), 1
    while failed - sustained > 1:
        if sustains(count):
            sustained = count
        else:
            failed = count
        if sustained and failed <= limit:
            count = (sustained + failed) // 2
        elif sustained:
            count = min(sustained + step, limit)
        else:
            count = max(failed - step, 1)
        step *= 2
    return sustained
