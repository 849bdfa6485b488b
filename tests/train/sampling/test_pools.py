"""Tests of reading the clips of a data set into memory."""

from __future__ import annotations

from pathlib import Path

from train.sampling.pools import read_pool


def test_validation_groups_are_held_out(clips: Path) -> None:
    """Validation groups are in no training pool, and the validation pool contains nothing else."""
    pool = read_pool(clips, ("kept-out",), 1.02)
    assert set(pool.real) == {"a", "b"}
    assert {method: [group for group, _ in found] for method, found in pool.fake.items()} == {
        "swap": ["a", "b"]
    }
    validation = read_pool(clips, ("kept-out",), 1.02, validation=True)
    assert set(validation.real) == {"kept-out"}
    assert len(validation.clips()) == 2
