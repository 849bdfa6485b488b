"""JPEG images of a report: a frame with the boxes of its faces, and the crop of a face."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.messages import FaceState
from runtime.pipeline.stream_analysis import FaceVerdict
from streams.faces.colour import source_colorspace

FRAME_SIDE = 480
FRAME_QUALITY = 75
CROP_QUALITY = 85
# RGB; the same colours as in report.css.
COLOURS: dict[FaceState, tuple[int, int, int]] = {
    "real": (46, 160, 67),
    "uncertain": (214, 158, 0),
    "fake": (218, 54, 51),
}
OTHER_COLOUR = (150, 150, 150)


def encode_frame(image: av.VideoFrame, verdicts: Iterable[FaceVerdict]) -> bytes:
    """Return a frame as a small JPEG, with a box around each face in the colour of its state.

    Args:
        image: Decoded frame.
        verdicts: Verdicts on the faces of the frame.
    """
    scale = min(1.0, FRAME_SIDE / max(image.width, image.height))
    width, height = max(2, round(image.width * scale)), max(2, round(image.height * scale))
    small = image.reformat(
        width=width, height=height, format="rgb24", src_colorspace=source_colorspace(image), threads=1
    )
    rgb: NDArray[Any] = np.ascontiguousarray(small.to_ndarray())
    for verdict in verdicts:
        if verdict.state != "stale":
            left, top, box_width, box_height = (scale * value for value in verdict.box)
            corners = (round(left), round(top)), (round(left + box_width), round(top + box_height))
            cv2.rectangle(rgb, *corners, COLOURS.get(verdict.state, OTHER_COLOUR), 2)
    return _jpeg(rgb, FRAME_QUALITY)


def encode_crop(crop: NDArray[np.uint8]) -> bytes:
    """Return a crop, RGB uint8 `(H, W, 3)`, as JPEG."""
    return _jpeg(crop, CROP_QUALITY)


def _jpeg(rgb: NDArray[Any], quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()
