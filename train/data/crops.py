"""Change of margin and size of face crops that were cut before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def recrop(frames: NDArray[np.uint8], *, margin: float, to_margin: float, size: int) -> NDArray[np.uint8]:
    """Cut crops down to a smaller margin and resize them.

    Args:
        frames: RGB uint8 `(T, H, H, 3)`, cut with `margin`.
        margin: Side of the given crops as a multiple of the face box height.
        to_margin: Side of the returned crops as a multiple of the face box height. If it is larger than
            `margin`, the whole crop is used: padding would be an artefact that no live crop has.
        size: Side of the returned crops in pixels.

    Returns:
        RGB uint8 `(T, size, size, 3)`.
    """
    side = frames.shape[1]
    kept = min(side, 2 * round(side * to_margin / margin / 2))
    start = (side - kept) // 2
    middle = frames[:, start : start + kept, start : start + kept]
    if kept == size:
        return np.ascontiguousarray(middle)
    # The filters of streams.faces.crop: area down, linear up.
    filter_ = cv2.INTER_AREA if kept > size else cv2.INTER_LINEAR
    return np.stack(
        [
            np.asarray(cv2.resize(frame, (size, size), interpolation=filter_), dtype=np.uint8)
            for frame in middle
        ]
    )
