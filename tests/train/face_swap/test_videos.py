"""Tests of reading parts of videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from train.face_swap.videos import read_frames, read_part


def test_a_part_begins_later_if_enough_is_left(tmp_path: Path, film: Callable[..., Path]) -> None:
    """A part has the numbers from 0; of a video that ends before half of it, the start is read."""
    path = film(tmp_path / "a.mp4", frames=30)
    whole = [rgb for _, rgb in read_frames(path, 10, seconds=9, max_side=640)]
    for start_s, first, count in (
        (0, 0, 20),
        (0.6, 6, 20),
        (0.64, 6, 20),
        (2.0, 20, 10),
        (2.2, 0, 20),
        (8.0, 0, 20),
    ):
        numbers, part = zip(*read_part(path, 10, start_s=start_s, seconds=2, max_side=640), strict=True)
        assert numbers == tuple(range(count)), start_s
        assert np.array_equal(part, whole[first : first + count]), start_s
