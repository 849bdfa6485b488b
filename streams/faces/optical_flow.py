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
GRID_POINTS = 5
"""Points per row and per column of the grid in a face. Boxes from 7 are no better. Another number moves the
boxes a little, so it needs a temporal classifier fitted to crops of these boxes."""
GRID_INSET = 0.15
"""Share of the box that the grid leaves out on each side, where the background is visible."""
STOPPING = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
"""Iterations per point and level, and the step in pixels below which they end; a median needs no more."""
MIN_CONSISTENT = 0.3
"""Share of the points that must return to within one pixel of their start.

Measured at 8 Hz on 44 videos of webcams and phones: 10 of 1,351 steps of a real face are below it, and 33 of
1,365 cuts to another video above it; with 49 points instead of 25 they are 8 and 33.
"""

_STEPS = np.linspace(GRID_INSET, 1 - GRID_INSET, GRID_POINTS)
_GRID = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 2)  # in sides of the box


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
        # The points of all faces together, because each call halves both images anew.
        shifts = _median_shifts(previous, current, np.array(list(boxes.values())).reshape(-1, 4) * scale)
        return {
            track: (shift[0] / scale, shift[1] / scale)
            for track, shift in zip(boxes, shifts, strict=True)
            if shift is not None
        }

    def clear(self) -> None:
        """Forget the previous frame, because the next one does not follow it or has another size."""
        self._previous = None


def _median_shifts(
    previous: NDArray[np.uint8], current: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> list[tuple[float, float] | None]:
    """Return the median motion (right, down) of a grid of points in each box; None if it is unreliable."""
    if len(boxes) == 0:
        return []
    start = (boxes[:, None, :2] + _GRID * boxes[:, None, 2:]).astype(np.float32)
    end, found_forward = _track_points(previous, current, start)
    returned, found_backward = _track_points(current, previous, end)
    consistent = found_forward & found_backward & (np.linalg.norm(returned - start, axis=2) < 1)
    motion = end - start
    return [
        (*np.median(face_motion[reliable], axis=0).tolist(),) if reliable.mean() >= MIN_CONSISTENT else None
        for face_motion, reliable in zip(motion, consistent, strict=True)
    ]


def _track_points(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool]]:
    """Return where points `(faces, N, 2)` of the first image are in the second, and which were found."""
    flat = points.reshape(-1, 1, 2)
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, flat, np.empty_like(flat), winSize=(15, 15), maxLevel=3, criteria=STOPPING
    )
    shape = points.shape[:2]
    return np.asarray(tracked, np.float32).reshape(*shape, 2), np.asarray(found, np.bool).reshape(shape)
