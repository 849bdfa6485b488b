"""Cut a face out of a picture: the one preprocessing that live analysis and training share.

A crop is a square centred on the face box, its side `margin` times the box's height, scaled to `size` by an
area filter (down) or linearly (up). What lies outside the picture repeats its edge.
"""

import math

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the full picture; x and y are of the top left corner."""

# Pixel format to how many luma samples share one chroma sample, across and down.
PLANAR = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (2, 1),
    "yuvj422p": (2, 1),
    "yuv444p": (1, 1),
    "yuvj444p": (1, 1),
}
# What cameras and hardware decoders pack differently, to the planar format with the same samples: swscale
# only has to move bytes, a tenth of the cost of a conversion to RGB.
REPACKED = {"nv12": "yuv420p", "nv21": "yuv420p", "yuyv422": "yuv422p", "uyvy422": "yuv422p"}
# Weights of red and blue in luma, by the number that H.273 (and so FFmpeg's AVColorSpace) gives a matrix.
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
BT601 = 5
UNSPECIFIED = 2
FULL_RANGE = 2


def crop_face(
    picture: av.VideoFrame, box: Box, *, size: int, margin: float, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Cut one face out of a decoded picture.

    Args:
        picture: Any size and pixel format that swscale reads. Of planar 8-bit YUV only the square is
            converted, else the whole picture. Matrix and range are its own; unset means BT.601, limited.
        box: The face in pixels of the picture; may reach, or lie, outside it.
        size: Side of the crop in pixels.
        margin: Side of the square over the height of the box.
        out: Where to write, uint8 (size, size, 3), contiguous; a new array is made when not given.

    Returns:
        RGB uint8 (size, size, 3), which is `out` when that was given.

    Raises:
        ValueError: The box is empty or not finite.
    """
    if picture.format.name in REPACKED:
        matrix = known_colorspace(picture)
        picture = picture.reformat(
            format=REPACKED[picture.format.name], src_colorspace=matrix, dst_colorspace=matrix, threads=1
        )
    subsampling = PLANAR.get(picture.format.name)
    if subsampling is None or any(plane.line_size < 0 for plane in picture.planes):
        # A negative line size is a picture stored bottom up.
        rgb = picture.reformat(
            format="rgb24",
            src_colorspace=known_colorspace(picture),
            # Without these swscale rounds coarsely, by up to three grey levels.
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
            threads=1,
        )
        return crop_array(_plane(rgb, 0, channels=3), box, size=size, margin=margin, out=out)
    x, y, side = square(box, margin)
    across, down = subsampling
    yuv = np.empty((size, size, 3), np.float32)
    for index in range(3):
        # Chroma is taken as sited between the luma samples, as swscale and JPEG do; where a stream puts it at
        # the left one this is off by a quarter of a chroma sample.
        step_x, step_y = (across, down) if index else (1, 1)
        part = (x // step_x, y // step_y, side // step_x, side // step_y)
        yuv[..., index] = _scale(_plane(picture, index), *part, size)
    full = picture.format.name.startswith("yuvj") or picture.color_range == FULL_RANGE
    to_rgb = _rgb_from_yuv(LUMA_WEIGHTS.get(picture.colorspace, LUMA_WEIGHTS[BT601]), full=full)
    return _round(np.asarray(cv2.transform(yuv, to_rgb), np.float32), out)


def crop_array(
    rgb: NDArray[np.uint8], box: Box, *, size: int, margin: float, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Cut one face out of an RGB array, with the geometry of `crop_face`.

    Args:
        rgb: Picture, RGB uint8 (H, W, 3).
        box: The face in pixels of the picture; may reach, or lie, outside it.
        size: Side of the crop in pixels.
        margin: Side of the square over the height of the box.
        out: Where to write, uint8 (size, size, 3), contiguous; a new array is made when not given.

    Returns:
        RGB uint8 (size, size, 3), which is `out` when that was given.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, side = square(box, margin)
    return _round(_scale(rgb, x, y, side, side, size), out)


def square(box: Box, margin: float) -> tuple[int, int, int]:
    """Return the square that a crop covers: x and y of its top left corner and its side, in pixels.

    All three are even, so that the square has whole samples in the chroma planes of 4:2:0 too.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, width, height = box
    if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
        raise ValueError(f"a face box needs finite numbers and a positive size, not {box}")
    side = 2 * max(1, round(margin * height / 2))
    return 2 * round((x + width / 2 - side / 2) / 2), 2 * round((y + height / 2 - side / 2) / 2), side


def known_colorspace(picture: av.VideoFrame) -> int | None:
    """Return BT.601 for a picture whose matrix swscale refuses (YCgCo, ICtCp), None for its own matrix."""
    known = picture.colorspace in LUMA_WEIGHTS or picture.colorspace in (0, UNSPECIFIED)
    return None if known else int(Colorspace.ITU601)


def _plane(picture: av.VideoFrame, index: int, channels: int = 1) -> NDArray[np.uint8]:
    """View one 8-bit plane as (H, W) or (H, W, channels) without the padding at the end of its lines."""
    plane = picture.planes[index]
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * plane.height)
    samples = lines.reshape(plane.height, plane.line_size)[:, : plane.width * channels]
    return samples if channels == 1 else samples.reshape(plane.height, plane.width, channels)


def _scale(
    plane: NDArray[np.uint8], x: int, y: int, width: int, height: int, size: int
) -> NDArray[np.float32]:
    """Scale a rectangle of a plane, which may reach outside it, to (size, size).

    The result is not rounded: three planes rounded to bytes are up to two grey levels off once mixed.
    """
    if min(width, height) > size:
        part = _cut(plane, x, y, width, height).astype(np.float32)
        return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    # One sample more all around, so that the outermost pixels are interpolated between real neighbours.
    part = _cut(plane, x - 1, y - 1, width + 2, height + 2).astype(np.float32)
    across, down = width / size, height / size
    inverse = np.array([[across, 0, across / 2 + 0.5], [0, down, down / 2 + 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(part, inverse, (size, size), flags=flags), np.float32)


def _cut(plane: NDArray[np.uint8], x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """Cut a rectangle that may reach outside the plane, repeating the plane's edge there."""
    rows, columns = plane.shape[:2]
    # At least one line and one column stay in, so a rectangle wholly outside is made of the nearest edge.
    left, top = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
    right, bottom = max(min(x + width, columns), left + 1), max(min(y + height, rows), top + 1)
    inside = plane[top:bottom, left:right]
    missing_rows, missing_columns = height - (bottom - top), width - (right - left)
    if not missing_rows and not missing_columns:
        return inside
    above, before = min(max(-y, 0), missing_rows), min(max(-x, 0), missing_columns)
    below, after = missing_rows - above, missing_columns - before
    return np.asarray(cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_REPLICATE), np.uint8)


def _round(crop: NDArray[np.float32], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    rounded = np.clip(np.rint(crop), 0, 255)
    if out is None:
        return rounded.astype(np.uint8)
    np.copyto(out, rounded, casting="unsafe")
    return out


def _rgb_from_yuv(weights: tuple[float, float], *, full: bool) -> NDArray[np.float32]:
    """Return the (3, 4) matrix from 8-bit Y, Cb, Cr, 1 to 8-bit R, G, B.

    Source: ITU-T H.273, section 8.3, "Matrix coefficients".
    """
    red, blue = weights
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
