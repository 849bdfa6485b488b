"""Reduced versions of one decoded frame, shared by the face detector and optical flow.

    reduced = ReducedFrame(frame.image)
    grey = reduced.grey(320)
    rgb = reduced.rgb(640)

The planes of a frame are halved until less than twice the requested size is left, and each half is kept for
the next request. Halving is the cheapest area filter there is, and reads the full frame once per plane:

    milliseconds of CPU time                  1280 x 720          1920 x 1080
    grey, 320 pixels                          0.04 instead of 0.32    0.2 instead of 0.64
"""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streams.faces.colour import PLANAR, rgb_from_yuv, source_colorspace

__all__ = ["ReducedFrame"]

Plane = NDArray[np.uint8]


class ReducedFrame:
    """Reduced versions of a frame in grey and in RGB; a smaller frame is not enlarged.

    Args:
        image: Decoded frame of any size and any pixel format that swscale reads.
    """

    def __init__(self, image: av.VideoFrame) -> None:
        self.width, self.height = image.width, image.height
        self._image = image
        # A frame with a negative line size is stored bottom up.
        planar = image.format.name in PLANAR and all(plane.line_size > 0 for plane in image.planes)
        self._halves: list[list[Plane]] | None = (
            [[_view(plane)] for plane in image.planes] if planar else None
        )

    def size(self, long_side: int) -> tuple[int, int]:
        """Return width and height of the version whose longer side has at most `long_side` pixels."""
        scale = min(1.0, long_side / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def grey(self, long_side: int) -> Plane:
        """Return the luma, whose range is that of the frame, uint8 `(h, w)`."""
        size = self.size(long_side)
        return self._reformatted(size, "gray") if self._halves is None else self._plane(0, size)

    def rgb(self, long_side: int) -> Plane:
        """Return the colours in RGB, uint8 `(h, w, 3)`."""
        size = self.size(long_side)
        if self._halves is None:
            return self._reformatted(size, "rgb24")
        yuv = cv2.merge([self._plane(index, size) for index in range(3)])
        return np.asarray(cv2.transform(yuv, rgb_from_yuv(self._image)), np.uint8)

    def _plane(self, index: int, size: tuple[int, int]) -> Plane:
        """Return a plane at a size: halved, and then scaled by a factor below two."""
        assert self._halves is not None
        halves, number = self._halves[index], 0
        while halves[number].shape[1] >= 2 * size[0] and halves[number].shape[0] >= 2 * size[1]:
            if number + 1 == len(halves):
                # An odd last line is left out, because only exact halves are fast.
                rows, columns = halves[number].shape
                even = halves[number][: rows // 2 * 2, : columns // 2 * 2]
                halves.append(_resized(even, (columns // 2, rows // 2), cv2.INTER_AREA))
            number += 1
        reduced = halves[number]
        if reduced.shape[::-1] == size:
            return reduced
        smaller = reduced.shape[1] >= size[0] and reduced.shape[0] >= size[1]
        return _resized(reduced, size, cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def _reformatted(self, size: tuple[int, int], name: str) -> Plane:
        small = VideoReformatter().reformat(
            self._image,
            *size,
            name,
            src_colorspace=source_colorspace(self._image),
            interpolation=Interpolation.AREA,
            threads=1,
        )
        return small.to_ndarray().astype(np.uint8, copy=False)


def _view(plane: av.video.plane.VideoPlane) -> Plane:
    """View an 8-bit plane without the padding at the end of its lines."""
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * plane.height)
    return lines.reshape(plane.height, plane.line_size)[:, : plane.width]


def _resized(plane: Plane, size: tuple[int, int], interpolation: int) -> Plane:
    return np.asarray(cv2.resize(plane, size, interpolation=interpolation), np.uint8)
