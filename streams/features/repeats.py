"""Detection of repeated frames, which have a new time stamp and the image of the previous one."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["Repeats"]


class Repeats:
    """Comparison of each sample of one stream with the one before.

    A frozen camera, a paused call and a slide repeat frames. A repetition contains nothing new, so it must
    not enter a window or cause a verdict. Repetitions that a lossy encoder changes, and those between
    samples, are left to `streams.features.repeat_changes`.
    """

    def __init__(self) -> None:
        self._previous: av.VideoFrame | None = None

    def is_repeat(self, image: av.VideoFrame) -> bool:
        """Return whether a frame has the size, the format and the first plane of the previous one.

        The first plane contains the luma, or all channels of a packed format.

        Args:
            image: The next frame; it is kept until the one after it, and must not be changed.
        """
        previous, self._previous = self._previous, image
        if previous is None:
            return False
        if (previous.width, previous.height, previous.format.name) != (
            image.width,
            image.height,
            image.format.name,
        ):
            return False
        before, now = _lines(previous), _lines(image)
        # One line in 16 is compared first, because nearly every new frame already differs there.
        return bool(np.array_equal(before[::16], now[::16]) and np.array_equal(before, now))


def _lines(image: av.VideoFrame) -> NDArray[np.uint8]:
    """View the first plane as lines of bytes, without the padding at their ends."""
    plane = image.planes[0]
    stride = abs(plane.line_size)
    lines = np.frombuffer(memoryview(plane), np.uint8, stride * plane.height).reshape(plane.height, stride)
    layout = image.format
    bits = 8 * -(-layout.components[0].bits // 8) if layout.is_planar else layout.padded_bits_per_pixel
    return lines[:, : -(-image.width * bits // 8)]
