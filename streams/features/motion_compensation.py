"""Difference of two crops without the motion between them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.features.face_regions import COLUMNS, GRID, ROWS


class MotionCompensation:
    """Dense optical flow between the used parts of crops of one size; see `face_regions.used_part`.

    Args:
        size: Side of the crops in pixels, a multiple of `GRID`.
        flow: OpenCV's DIS optical flow, with its settings.
    """

    def __init__(self, size: int, flow: cv2.DISOpticalFlow) -> None:
        self._flow = flow
        cell = size // GRID
        height, width = (cell * (cells.stop - cells.start) for cells in (ROWS, COLUMNS))
        self._pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)

    def flow(self, earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the motion from one grey used part to another.

        Args:
            earlier: Grey uint8 `(H, W)`.
            later: Grey uint8 `(H, W)`.

        Returns:
            float32 `(H, W, 2)`, x and y in pixels.
        """
        return self._flow.calc(earlier, later, None)  # type: ignore[call-overload,no-any-return]

    def difference(
        self, earlier: NDArray[np.uint8], later: NDArray[np.uint8], flow: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the later used part, warped back by the flow, less the earlier one.

        Args:
            earlier: uint8 `(H, W)` or `(H, W, 3)`.
            later: uint8 of the same shape.
            flow: Motion between them.

        Returns:
            float32 of the same shape, in grey levels.
        """
        warped = cv2.remap(  # type: ignore[call-overload]
            later, self._pixels + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(cv2.subtract(warped, earlier, dtype=cv2.CV_32F), np.float32)
