"""Tests of reading parts of videos, and of writing them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from train.face_swap.videos import read_frames, read_part

WRITE = """
import sys
from pathlib import Path
import numpy as np
from train.face_swap.videos import VideoWriter
rows, columns = np.mgrid[:280, :428]
with VideoWriter(Path(sys.argv[1]), 25, 22) as writer:
    for number in range(30):
        waves = [120 + 90 * np.sin(rows * columns / k + number * k / 50) for k in (400, 700, 900)]
        writer.write(number, np.stack(waves, axis=-1).astype(np.uint8))
"""


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


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    """Uninitialised memory does not change a file."""
    contents = []
    for byte in (0, 85):
        path = tmp_path / f"{byte}.mp4"
        # glibc fills new memory with this.
        environment = {**os.environ, "MALLOC_PERTURB_": str(byte)}
        root = Path(__file__).parents[3]
        subprocess.run([sys.executable, "-c", WRITE, str(path)], env=environment, cwd=root, check=True)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
