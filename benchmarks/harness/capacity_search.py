"""Find the most that holds: up in growing strides until it breaks, then halve the gap.

Pure: what is measured is passed in.
"""

from __future__ import annotations

from collections.abc import Callable


def max_capacity(holds: Callable[[int], bool], *, start: int = 1, most: int) -> int:
    """Find the largest count that holds, taking for granted that whatever is less holds as well.

    Args:
        holds: Measures one count; called once for each count at most.
        start: The count to begin with; the nearer to the result, the fewer measurements.
        most: The largest count to try.

    Returns:
        0..most; 0 if not even one holds.

    Raises:
        ValueError: `most` or `start` is below 1.
    """
    if most < 1 or start < 1:
        raise ValueError(f"start and most must be at least 1, not {start}, {most}")
    held, broke = 0, most + 1
    count, stride = min(start, most), 1
    while broke - held > 1:
        if holds(count):
            held = count
        else:
            broke = count
        if held and broke <= most:
            count = (held + broke) // 2
        elif held:
            count = min(held + stride, most)
        else:
            count = max(broke - stride, 1)
        stride *= 2
    return held
