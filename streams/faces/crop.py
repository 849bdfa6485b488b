"""Face crops: the one preprocessing that runtime and training share.

A crop is a square centred on the face box with a side of `margin` times the box's height. It is scaled to
`size` x `size` pixels by an area filter (down) or linearly (up). Pixels outside the frame replicate its edge.
"""

import math

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from streams.faces.colour import (
    LUMA_BYTE,
    PACKED_RGB,
    PLANAR,
    REPACKED,
    rgb_from_yuv,
    source_colorspace,
)

Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels of the full frame; x and y are the top left corner."""


def crop_face(
    image: av.VideoFrame, box: Box, *, size: int, margin: float, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Crop one face from a decoded frame.

    Args:
        image: Decoded frame of any size and any pixel format that swscale reads. In planar 8-bit YUV and in
            packed RGB only the square is converted, otherwise the whole frame. Matrix and range are those of
            the frame; an unset matrix means BT.601, an unset range means limited.
        box: Face box in pixels of the frame; may extend or lie outside it.
        size: Side of the crop in pixels.
        margin: Side of the square divided by the height of the box.
        out: Destination, uint8 (size, size, 3), contiguous; a new array if None.

    Returns:
        RGB uint8 (size, size, 3); `out` if that was given.

    Raises:
        ValueError: The box is empty or not finite.
    """
    if image.format.name in REPACKED:
        matrix = source_colorspace(image)
        image = image.reformat(
            format=REPACKED[image.format.name], src_colorspace=matrix, dst_colorspace=matrix, threads=1
        )
    x, y, side = square(box, margin)
    bottom_up = _is_bottom_up(image)
    if image.format.name in PACKED_RGB and not bottom_up:
        return _round(_scale(_packed_rgb(image, x, y, side), 1, 1, side, side, size), out)
    subsampling = PLANAR.get(image.format.name)
    if subsampling is None or bottom_up:
        rgb = image.reformat(
            format="rgb24",
            src_colorspace=source_colorspace(image),
            # Without these flags swscale rounds coarsely, by up to three grey levels.
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
            threads=1,
        )
        return crop_array(_plane(rgb, 0, channels=3), box, size=size, margin=margin, out=out)
    planes = []
    for index in range(3):
        # Chroma samples are taken to lie between the luma samples, as swscale and JPEG do. Where a stream
        # sites them at the left luma sample, the result is off by a quarter of a chroma sample.
        step_x, step_y = subsampling if index else (1, 1)
        region = (x // step_x, y // step_y, side // step_x, side // step_y)
        planes.append(_scale(_plane(image, index), *region, size))
    converted = cv2.transform(cv2.merge(planes), rgb_from_yuv(image))
    return _round(np.asarray(converted, np.float32), out)


def crop_luma(image: av.VideoFrame, box: Box, *, size: int, margin: float) -> NDArray[np.uint8]:
    """Crop one face from the luma of a decoded frame, with the geometry of `crop_face`.

    Faster than `crop_face`, for many frames of each sample: below twice the size it scales down linearly.

    Args:
        image: Decoded frame of any size and any pixel format that swscale reads.
        box: Face box in pixels of the frame; may extend or lie outside it.
        size: Side of the crop in pixels.
        margin: Side of the square divided by the height of the box.

    Returns:
        Grey uint8 (size, size); in the range of the frame.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, side = square(box, margin)
    plane, x, y = _luma(image, x, y, side)
    if side <= size:
        return np.asarray(np.rint(_scale(plane, x, y, side, side, size)), np.uint8)
    region = _halved(_cut(plane, x, y, side, side), size)
    # Below twice the size, linear interpolation uses every pixel too, in a seventh of the time.
    interpolation = cv2.INTER_LINEAR if len(region) < 2 * size else cv2.INTER_AREA
    return np.asarray(cv2.resize(region, (size, size), interpolation=interpolation), np.uint8)


def crop_array(
    rgb: NDArray[np.uint8], box: Box, *, size: int, margin: float, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Crop one face from an RGB array, with the geometry of `crop_face`.

    Args:
        rgb: RGB uint8 (H, W, 3).
        box: Face box in pixels of the array; may extend or lie outside it.
        size: Side of the crop in pixels.
        margin: Side of the square divided by the height of the box.
        out: Destination, uint8 (size, size, 3), contiguous; a new array if None.

    Returns:
        RGB uint8 (size, size, 3); `out` if that was given.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, side = square(box, margin)
    return _round(_scale(rgb, x, y, side, side, size), out)


def square(box: Box, margin: float) -> tuple[int, int, int]:
    """Return the square that a crop covers: x and y of its top left corner and its side, in pixels.

    All three are even, so that the square covers whole samples of 4:2:0 chroma planes too.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, width, height = box
    if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
        raise ValueError(f"a face box needs finite numbers and a positive size, not {box}")
    side = 2 * max(1, round(margin * height / 2))
    return 2 * round((x + width / 2 - side / 2) / 2), 2 * round((y + height / 2 - side / 2) / 2), side


def _plane(image: av.VideoFrame, index: int, channels: int = 1) -> NDArray[np.uint8]:
    """View one 8-bit plane as (H, W) or (H, W, channels) without the padding at the end of its lines."""
    plane = image.planes[index]
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * plane.height)
    samples = lines.reshape(plane.height, plane.line_size)[:, : plane.width * channels]
    return samples if channels == 1 else samples.reshape(plane.height, plane.width, channels)


def _is_bottom_up(image: av.VideoFrame) -> bool:
    """Return whether the lines of a frame are stored from the last to the first; see `_plane`."""
    return any(plane.line_size < 0 for plane in image.planes)


def _packed_rgb(image: av.VideoFrame, x: int, y: int, side: int) -> NDArray[np.uint8]:
    """Return a square of a packed RGB frame and one pixel around it, RGB uint8 (side + 2, side + 2, 3)."""
    channels, conversion = PACKED_RGB[image.format.name]
    region = _cut(_plane(image, 0, channels), x - 1, y - 1, side + 2, side + 2)
    return region if conversion is None else np.asarray(cv2.cvtColor(region, conversion), np.uint8)


def _luma(image: av.VideoFrame, x: int, y: int, side: int) -> tuple[NDArray[np.uint8], int, int]:
    """Return luma (H, W) that contains a square of the frame, and x and y of the square in it."""
    name = image.format.name
    if not _is_bottom_up(image):
        if name in PACKED_RGB:
            return (
                np.asarray(cv2.cvtColor(_packed_rgb(image, x, y, side), cv2.COLOR_RGB2GRAY), np.uint8),
                1,
                1,
            )
        if name in LUMA_BYTE:
            return _plane(image, 0, channels=2)[..., LUMA_BYTE[name]], x, y
        if name in PLANAR or name in REPACKED:
            return _plane(image, 0), x, y
    return _plane(image.reformat(format="gray8", threads=1), 0), x, y


def _scale(
    plane: NDArray[np.uint8], x: int, y: int, width: int, height: int, size: int
) -> NDArray[np.float32]:
    """Scale a rectangle of a plane, which may extend outside it, to (size, size)."""
    # The result stays float: three planes rounded to bytes are up to two grey levels off once converted.
    if min(width, height) > size:
        region = _halved(_cut(plane, x, y, width, height), size).astype(np.float32)
        return np.asarray(cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    # One more sample on each side, so that the outermost pixels are interpolated between real neighbours.
    region = _cut(plane, x - 1, y - 1, width + 2, height + 2).astype(np.float32)
    step_x, step_y = width / size, height / size
    inverse = np.array([[step_x, 0, step_x / 2 + 0.5], [0, step_y, step_y / 2 + 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(region, inverse, (size, size), flags=flags), np.float32)


def _halved(region: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Halve a region until its sides are below twice `size`, in bytes, which are faster than floats."""
    while min(region.shape[:2]) >= 2 * size and not (region.shape[0] % 2 or region.shape[1] % 2):
        half = region.shape[1] // 2, region.shape[0] // 2
        region = np.asarray(cv2.resize(region, half, interpolation=cv2.INTER_AREA), np.uint8)
    return region


def _cut(plane: NDArray[np.uint8], x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a rectangle that may extend outside the plane; the plane's edge is replicated there."""
    rows, columns = plane.shape[:2]
    # At least one row and one column of the plane are used, so a rectangle wholly outside shows its edge.
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
    # Adding zero rounds and saturates; `convertScaleAbs` would take absolute values.
    return np.asarray(cv2.add(crop, 0.0, dst=out, dtype=cv2.CV_8U), np.uint8)  # type: ignore[call-overload]
