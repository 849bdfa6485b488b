"""Varies crops as the runtime's crops vary: position, mirror, light, blur, scale, compression.

Every variation is drawn once and applied to all frames of a clip alike.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def varied(frames: Frames, size: int, rng: np.random.Generator) -> Frames:
    """Vary the frames of one clip alike.

    Args:
        frames: uint8 RGB (T, H, W, 3).
        size: Side of the result in pixels.
        rng: Where the variation is drawn from.

    Returns:
        uint8 RGB (T, size, size, 3).
    """
    side = frames.shape[1]
    scale = size / side * rng.uniform(0.97, 1.12)
    shift = size / 2 - scale * side / 2 + rng.normal(0, 0.02 * size, 2)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array(
        [[mirror * scale, 0, shift[0] + (size - 2 * shift[0] if mirror < 0 else 0)], [0, scale, shift[1]]],
        np.float32,
    )
    light = None
    if rng.random() < 0.5:
        ramp = np.arange(256) / 255.0
        gain, gamma = rng.normal(1, 0.12), np.exp(rng.normal(0, 0.2))
        tint = rng.normal(0, 5, 3)
        light = np.clip(255 * gain * ramp[:, None] ** gamma + tint, 0, 255).astype(np.uint8)[None]
    blur = rng.uniform(0.3, 1.0) if rng.random() < 0.15 else 0.0
    shrink = rng.uniform(0.45, 0.9) if rng.random() < 0.2 else 1.0
    quality = int(rng.integers(35, 95)) if rng.random() < 0.5 else 0
    noise = rng.uniform(1, 5) if rng.random() < 0.15 else 0.0
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for index, frame in enumerate(frames):
        image = cv2.warpAffine(
            frame, turn, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        if light is not None:
            image = cv2.LUT(image, light)
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), blur)
        if shrink < 1:
            small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        if noise:
            image = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
        if quality:
            _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
            image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
        out[index] = image
    return out
