"""Tests of finding the original of a fake frame and the region that was changed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

from train.sampling.pairing import REGION_PX, changed_region, find_original_frames

FACE = np.ascontiguousarray(astronaut()[20:180, 140:300])  # type: ignore[no-untyped-call]


def recoloured(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the face with its middle in another colour."""
    fake = face.copy()
    fake[60:100, 50:110] = np.clip(fake[60:100, 50:110].astype(int) + np.array([40, -30, 20]), 0, 255)
    return fake


def shifted(face: NDArray[np.uint8], x: float, y: float, scale: float = 1.0) -> NDArray[np.uint8]:
    """Return the face cropped at another position and scale."""
    transform = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    return np.asarray(cv2.warpAffine(face, transform, (160, 160), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def share(region: NDArray[np.uint8] | None, rows: slice, columns: slice) -> float:
    """Return which share of a part of the crop counts as changed."""
    assert region is not None
    assert region.shape == (REGION_PX, REGION_PX)
    large = cv2.resize(region, (160, 160))
    return float(large[rows, columns].mean() / 255)


def test_the_changed_region_is_found() -> None:
    """The region covers the changed part and hardly anything else."""
    region, transform = changed_region(FACE, recoloured(FACE))
    assert transform is not None
    assert np.abs(transform - np.eye(2, 3)).max() < 0.01
    assert share(region, slice(65, 95), slice(55, 105)) > 0.9
    assert share(region, slice(0, 40), slice(0, 160)) < 0.05
    assert share(region, slice(120, 160), slice(0, 160)) < 0.05


def test_shifted_crops_are_registered() -> None:
    """A differently cropped original gives the same region, in coordinates of the fake."""
    region, transform = changed_region(shifted(FACE, 4, -3, 1.04), recoloured(FACE))
    assert transform is not None
    assert np.abs(transform - np.array([[1.04, 0, 4 / 160], [0, 1.04, -3 / 160]])).max() < 0.01
    assert share(region, slice(65, 95), slice(55, 105)) > 0.9
    assert share(region, slice(15, 40), slice(20, 140)) < 0.15


def test_unrelated_frames_have_no_region() -> None:
    """Frames that cannot be registered, or differ everywhere, have no region."""
    noise = np.random.default_rng(0).integers(0, 256, FACE.shape, dtype=np.uint8)
    assert changed_region(noise, FACE) == (None, None)
    assert changed_region(FACE, 255 - FACE) == (None, None)


def test_the_most_similar_frame_is_the_original() -> None:
    """The frame of the same moment is found among all real clips of the group."""
    reals = [np.stack([shifted(FACE, 6 * i + 30 * clip, 2 * i) for i in range(4)]) for clip in range(2)]
    fake = np.stack([recoloured(reals[1][i]) for i in (1, 2, 3)])
    original_frames = find_original_frames(fake, reals)
    assert [(original.clip, original.frame) for original in original_frames] == [(1, 1), (1, 2), (1, 3)]
    assert all(original.region is not None for original in original_frames)
