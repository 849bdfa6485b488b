"""Reading of what a run of `train swap` or `train self-blend` wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> NDArray[np.int64]:
    """Return all frames of a video, RGB `(T, H, W, 3)`, as integers whose differences have a sign."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.int64)
