"""Motion of faces between consecutive frames, by sparse optical flow with a forward-backward check.

Source: Kalal et al., "Forward-Backward Error: Automatic Detection of Tracking Failures", ICPR 2010.
"""

from collections.abc import Mapping

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streams.faces.colour import source_colorspace
from streams.faces.crop import Box

FLOW_SIDE = 320
"""Longer side in pixels of the greyscale image in which motion is measured."""
GRID_POINTS = 7
"""Points per row and per column of the grid that is tracked in a face."""
GRID_INSET = 0.15
"""Share of the box that the grid leaves out on each side, where the background is visible."""
MIN_CONSISTENT = 0.3
"""Share of the points that must return to within one pixel of their start.

Measured at 8 to 10 Hz: at least 0.47 from one sample of a real face to the next, at most 0.14 across a cut
from one face to another.
"""


class FaceMotion:
    """Motion of the faces of one stream from each frame to the next; one thread, frames in order."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._previous: NDArray[np.uint8] | None = None

    def update(self, image: av.VideoFrame, boxes: Mapping[int, Box]) -> dict[int, tuple[float, float]]:
        """Measure how far faces have moved since the previous frame.

        Args:
            image: The next frame.
            boxes: Track id -> face box in the previous frame, in pixels.

        Returns:
            Track id -> motion (right, down) in pixels, without faces whose motion is unreliable; empty for
            the first frame.
        """
        scale = min(1.0, FLOW_SIDE / max(image.width, image.height))
        previous, current = self._previous, self._grey(image, scale)
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

    def _grey(self, image: av.VideoFrame, scale: float) -> NDArray[np.uint8]:
        small = self._reformatter.reformat(
            image,
            max(1, round(image.width * scale)),
            max(1, round(image.height * scale)),
            "gray",
            src_colorspace=source_colorspace(image),
            interpolation=Interpolation.AREA,
            threads=1,
        )
        return small.to_ndarray().astype(np.uint8, copy=False)


def _median_shift(
    previous: NDArray[np.uint8], current: NDArray[np.uint8], box: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return the median motion (right, down) of a grid of points in a box; None if too few are consistent."""
    x, y, width, height = box
    steps = np.linspace(GRID_INSET, 1 - GRID_INSET, GRID_POINTS)
    columns, rows = np.meshgrid(x + steps * width, y + steps * height)
    start = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(np.float32)
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
        first, second, points, np.empty_like(points), winSize=(15, 15), maxLevel=3
    )
    return np.asarray(tracked, np.float32), np.asarray(found, np.bool)[:, 0]
