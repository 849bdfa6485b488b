"""Operations on stored face crops: change of margin and size, and JPEG coding."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def recrop(frames: NDArray[np.uint8], *, margin: float, to_margin: float, size: int) -> NDArray[np.uint8]:
    """Cut crops down to a smaller margin and resize them.

    Args:
        frames: RGB uint8 `(T, H, H, 3)`, cut with `margin`.
        margin: Side of the given crops as a multiple of the face box height.
        to_margin: Side of the returned crops as a multiple of the face box height. If it is larger than
            `margin`, the whole crop is used: padding would be an artefact that no live crop has.
        size: Side of the returned crops in pixels.

    Returns:
        RGB uint8 `(T, size, size, 3)`.
    """
    side = frames.shape[1]
    kept = min(side, 2 * round(side * to_margin / margin / 2))
    start = (side - kept) // 2
    middle = frames[:, start : start + kept, start : start + kept]
    if kept == size:
        return np.ascontiguousarray(middle)
    # The filters of streams.faces.crop: area down, linear up.
    filter_ = cv2.INTER_AREA if kept > size else cv2.INTER_LINEAR
    return np.stack(
        [np.asarray(cv2.resize(frame, (size, size), interpolation=filter_), np.uint8) for frame in middle]
    )


def encode_jpeg(crop: NDArray[np.uint8], quality: int, *, halve_chroma: bool = False) -> bytes:
    """Encode a crop as JPEG.

    Args:
        crop: RGB uint8 `(H, W, 3)`.
        quality: 1..100.
        halve_chroma: Whether to store colour at half resolution (4:2:0), as video does, instead of full
            resolution (4:4:4).

    Returns:
        Content of the JPEG file.
    """
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if halve_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def decode_image(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG or PNG file to RGB uint8 `(H, W, 3)`; return None if it is no image."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def jpeg_roundtrip(crop: NDArray[np.uint8], quality: int, *, halve_chroma: bool) -> NDArray[np.uint8]:
    """Return a crop as it is after JPEG compression; see `encode_jpeg`."""
    decoded = decode_image(encode_jpeg(crop, quality, halve_chroma=halve_chroma))
    assert decoded is not None, "a JPEG that was just written can be read"
    return decoded
