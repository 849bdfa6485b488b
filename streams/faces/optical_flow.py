"""Motion of faces between consecutive frames, by sparse optical flow with a forward-backward check.

Source: Kalal et al., "Forward-Backward Error: Automatic Detection of Tracking Failures", ICPR 2010.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.faces.crop import Box
from streams.faces.reduced_frame import ReducedFrame

FLOW_SIDE = 320
"""Longer side in pixels of the greyscale image in which motion is measured."""
GRID_POINTS = 7
"""Points per row and per column of the grid in a face. Boxes from 5 are as good, but their small differences
change the logits of the temporal classifier."""
GRID_INSET = 0.15
"""Share of the box that the grid leaves out on each side, where the background is visible."""
STOPPING = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
"""Iterations per point and level, and the step in pixels below which they end; a median needs no more."""
MIN_CONSISTENT = 0.3
"""Share of the points that must return to within one pixel of their start.

Measured at 8 to 10 Hz: at least 0.47 from one sample of a real face to the next, at most 0.14 across a cut
from one face to another.
"""

_STEPS = np.linspace(GRID_INSET, 1 - GRID_INSET, GRID_POINTS)
_GRID = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 1, 2)  # in sides of the box


class FaceMotion:
    """Motion of the faces of one stream from each frame to the next; one thread, frames in order."""

    def __init__(self) -> None:
        self._previous: NDArray[np.uint8] | None = None

    def update(self, image: ReducedFrame, boxes: Mapping[int, Box]) -> dict[int, tuple[float, float]]:
        """Measure how far faces have moved since the previous frame.

        Args:
            image: Reduced versions of the next frame.
            boxes: Track id -> face box in the previous frame, in pixels.

        Returns:
            Track id -> motion (right, down) in pixels, without faces whose motion is unreliable; empty for
            the first frame.
        """
        scale = min(1.0, FLOW_SIDE / max(image.width, image.height))
        previous, current = self._previous, image.grey(FLOW_SIDE)
        self._previous = current
        if previous is None:
            return {}
        shifts: dict[int, tuple[float, float]] = {}
        for track, box in boxes.items():
            shift = _median_shift(previous, current, np.array(box) * scale)
            if shift is not None:
                shifts[track] = (shift[0] / scale, shift[1] / scale)
        return shifts

    def clear(self) -> None:
        """Forget the previous frame, because the next one does not follow it or has another size."""
        self._previous = None


def _median_shift(
    previous: NDArray[np.uint8], current: NDArray[np.uint8], box: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return the median motion (right, down) of a grid of points in a box; None if too few are consistent."""
    start = (box[:2] + _GRID * box[2:]).astype(np.float32)
    end, found_forward = _track_points(previous, current, start)
    returned, found_backward = _track_points(current, previous, end)
    error = np.linalg.norm(returned - start, axis=2)[:, 0]
    consistent = found_forward & found_backward & (error < 1)
    if consistent.mean() < MIN_CONSISTENT:
        return None
    right, down = np.median((end - start)[consistent, 0], axis=0).tolist()
    return right, down


def _track_points(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool]]:
    """Return where points of the first image are in the second, and which of them were found."""
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, np.empty_like(points), winSize=(15, 15), maxLevel=3, criteria=STOPPING
    )
    return np.asarray(tracked, np.float32), np.asarray(found, np.bool)[:, 0]
