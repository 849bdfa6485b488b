"""Change persistence: whether a change of a face continues in the next frame or is taken back.

Light, expression and pose change a real face over several frames, so its changes point the same way from one
frame to the next. A face that is synthesised anew in every frame trembles: what one frame adds, the next one
takes back. The measure is the correlation of each part's change with its change one frame later: 1 where all
changes continue, -0.5 where every frame differs at random from the same face. It has no unit, so it does not
depend on how strong the changes are.

1. `streams.features.frame_changes` measures the signed change of each cell from frame to frame.
2. Products of consecutive changes and their squares are averaged over the regions of the face and the ring
   around it, and summed up (`persistence_sums`). The sums of several samples can be added.
3. Their ratio is the correlation (`persistence_features`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.features.face_regions import REGIONS

NUM_PERSISTENCE = len(REGIONS) + 1
"""Number of features of a window: one for each region, and last that of the ring."""
NUM_PERSISTENCE_SUMS = 2 * NUM_PERSISTENCE
"""Number of sums of a sample."""
VARIANCE_FLOOR = 0.02
"""Added to the mean square of the changes, in square grey levels; a region that hardly changes has no
persistence."""


def persistence_sums(
    earlier: NDArray[np.floating], later: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Sum up the products of consecutive changes in a sample.

    Args:
        earlier: Signed changes of the cells in grey levels, `(N, cells)`.
        later: Those one frame later, `(N, cells)`.
        weights: Weight of each cell in each region and in the ring, `(regions + 1, cells)`.

    Returns:
        float64 `(NUM_PERSISTENCE_SUMS,)`: the sums of the products and of the mean squares, for each region
        and the ring.
    """
    products = (earlier * later).sum(0)
    squares = (earlier**2 + later**2).sum(0) / 2
    return np.concatenate([weights @ products, weights @ squares], dtype=np.float64)


def persistence_features(sums: NDArray[np.floating], steps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the persistence of the changes in windows.

    Args:
        sums: Sums over the samples of each window, `(N, NUM_PERSISTENCE_SUMS)`.
        steps: Number of pairs of consecutive changes in each window, `(N,)`.

    Returns:
        float64 `(N, NUM_PERSISTENCE)`: the correlation, -1..1, for each region and the ring.
    """
    products, squares = np.split(np.asarray(sums, np.float64), 2, axis=1)
    return np.asarray(products / (squares + VARIANCE_FLOOR * np.maximum(steps, 1)[:, None]))
