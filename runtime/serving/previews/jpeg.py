"""Small JPEG images of decoded frames."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from streams.faces.colour import source_colorspace

QUALITY = 75


class JpegEncoder:
    """Encoder of frames of any size and pixel format; for one thread.

    Args:
        quality: JPEG quality, 1..100.
    """

    def __init__(self, quality: int = QUALITY) -> None:
        self._parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
        self._reformatter = VideoReformatter()

    def encode(self, image: av.VideoFrame, max_width: int) -> tuple[bytes, int, int]:
        """Return a frame as JPEG, with its width and height.

        Args:
            image: Decoded frame, upright.
            max_width: Largest width in pixels; a smaller frame is not enlarged.

        Raises:
            av.FFmpegError: swscale cannot convert the pixel format.
            ValueError: OpenCV cannot encode the frame.
        """
        width = min(max_width, image.width)
        height = max(1, round(image.height * width / image.width))
        small = self._reformatter.reformat(
            image,
            width,
            height,
            "bgr24",
            src_colorspace=source_colorspace(image),
            interpolation=Interpolation.AREA,
            threads=1,
        )
        encoded, data = cv2.imencode(".jpg", small.to_ndarray(), self._parameters)
        if not encoded:
            raise ValueError(f"no JPEG could be made of {width} x {height} pixels")
        return np.asarray(data).tobytes(), width, height
