"""Colour matrices and pixel formats of decoded frames.

Source: ITU-T H.273, section 8.3, "Matrix coefficients".
"""

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

# Planar 8-bit format -> luma samples that share one chroma sample, horizontally and vertically.
PLANAR = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (2, 1),
    "yuvj422p": (2, 1),
    "yuv444p": (1, 1),
    "yuvj444p": (1, 1),
}
# Packed and semi-planar formats of cameras and hardware decoders -> the planar format with the same samples.
# swscale only moves bytes between them, at a tenth of the cost of a conversion to RGB.
REPACKED = {"nv12": "yuv420p", "nv21": "yuv420p", "yuyv422": "yuv422p", "uyvy422": "yuv422p"}
# Packed YUV format -> which of the two bytes of a pixel is its luma.
LUMA_BYTE = {"yuyv422": 0, "uyvy422": 1}
# Packed RGB format -> bytes of a pixel, and OpenCV's conversion to RGB (None for RGB itself).
PACKED_RGB = {
    "rgb24": (3, None),
    "bgr24": (3, cv2.COLOR_BGR2RGB),
    "rgb0": (4, cv2.COLOR_RGBA2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgr0": (4, cv2.COLOR_BGRA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
}
# Matrix number of H.273 (FFmpeg's AVColorSpace) -> weights of red and blue in luma.
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
_BT601 = 5
_RGB, _UNSPECIFIED = 0, 2
_FULL_RANGE = 2


def source_colorspace(image: av.VideoFrame) -> int | None:
    """Return the matrix to pass to swscale: None for the frame's own, BT.601 if swscale refuses that.

    swscale refuses YCgCo and ICtCp, for example.
    """
    known = image.colorspace in LUMA_WEIGHTS or image.colorspace in (_RGB, _UNSPECIFIED)
    return None if known else int(Colorspace.ITU601)


def rgb_from_yuv(image: av.VideoFrame) -> NDArray[np.float32]:
    """Return the float32 (3, 4) matrix from 8-bit (Y, Cb, Cr, 1) to 8-bit (R, G, B) for a planar frame.

    Matrix and range are those of the frame; an unset matrix means BT.601, an unset range means limited.
    """
    full = image.format.name.startswith("yuvj") or image.color_range == _FULL_RANGE
    red, blue = LUMA_WEIGHTS.get(image.colorspace, LUMA_WEIGHTS[_BT601])
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if full else (255 / 219, 255 / 224, 16)
    from_cr, from_cb = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    linear = np.array(
        [
            [luma, 0, from_cr],
            [luma, -from_cb * blue / green, -from_cr * red / green],
            [luma, from_cb, 0],
        ]
    )
    offset = -linear @ np.array([black, 128, 128])
    return np.column_stack([linear, offset]).astype(np.float32)
