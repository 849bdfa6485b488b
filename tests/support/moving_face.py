"""Crops of a face that moves slightly, and changes to add to them, for the changes from frame to frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.frame_changes import SIZE, ChangeMeter, change_features

WHOLE = (0.0, 0.0, 1.0, 1.0)


def moving_face(count: int) -> NDArray[np.float32]:
    """Return a face that moves slightly, grey float32 (count, SIZE, SIZE)."""
    scene = np.asarray(astronaut(), np.uint8)[0:280, 84:364]  # type: ignore[no-untyped-call]
    grey = cv2.cvtColor(cv2.resize(scene, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    turned = (cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 0.3 * np.sin(i), 1.0) for i in range(count))
    return np.stack(
        [cv2.warpAffine(grey, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE) for matrix in turned]
    ).astype(np.float32)


def textures(count: int, seed: int) -> NDArray[np.float32]:
    """Return blotches that differ in every frame, with a standard deviation of 1."""
    blotches = np.random.default_rng(seed).normal(0, 1, (count, SIZE // 4, SIZE // 4)).astype(np.float32)
    return np.stack([cv2.resize(each, (SIZE, SIZE)) for each in blotches])


def face_mask() -> NDArray[np.float32]:
    """Return 1 inside the face and 0 in its surroundings."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(mask, (SIZE // 2, SIZE // 2), (SIZE // 5, SIZE // 4), 0, 0, 360, 1.0, -1)
    return mask


def as_images(frames: NDArray[np.floating]) -> list[NDArray[np.uint8]]:
    """Return frames as a camera would, uint8."""
    return list(np.clip(frames, 0, 255).astype(np.uint8))


def features_of(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the features of one window."""
    return np.asarray(change_features(ChangeMeter().measure(as_images(frames), WHOLE)[None])[0])
