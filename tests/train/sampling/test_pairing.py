"""The frame that a forgery was made of is found, and where it was forged."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

from train.sampling.pairing import REGION_PX, find_origins, forged_region

FACE = np.ascontiguousarray(astronaut()[20:180, 140:300])  # type: ignore[no-untyped-call]


def blotched(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same with its middle in another colour."""
    forged = face.copy()
    forged[60:100, 50:110] = np.clip(forged[60:100, 50:110].astype(int) + np.array([40, -30, 20]), 0, 255)
    return forged


def moved(face: NDArray[np.uint8], x: float, y: float, scale: float = 1.0) -> NDArray[np.uint8]:
    """The same, cropped elsewhere."""
    turn = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    return np.asarray(cv2.warpAffine(face, turn, (160, 160), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def share(region: NDArray[np.uint8] | None, rows: slice, columns: slice) -> float:
    """How much of a part of the crop (in its own pixels) counts as forged."""
    assert region is not None
    assert region.shape == (REGION_PX, REGION_PX)
    large = cv2.resize(region, (160, 160))
    return float(large[rows, columns].mean() / 255)


def test_where_it_differs() -> None:
    """The region is the forged part and hardly anything else, and the crops lie upon each other."""
    region, turn = forged_region(FACE, blotched(FACE))
    assert turn is not None
    assert np.abs(turn - np.eye(2, 3)).max() < 0.01
    assert share(region, slice(65, 95), slice(55, 105)) > 0.9
    assert share(region, slice(0, 40), slice(0, 160)) < 0.05
    assert share(region, slice(120, 160), slice(0, 160)) < 0.05


def test_crops_that_lie_elsewhere_are_registered() -> None:
    """Another crop of the original gives the same region, in the forged crop's place."""
    region, turn = forged_region(moved(FACE, 4, -3, 1.04), blotched(FACE))
    assert turn is not None
    assert np.abs(turn - np.array([[1.04, 0, 4 / 160], [0, 1.04, -3 / 160]])).max() < 0.01
    assert share(region, slice(65, 95), slice(55, 105)) > 0.9
    assert share(region, slice(15, 40), slice(20, 140)) < 0.15


def test_another_picture_is_no_origin() -> None:
    """What cannot be registered, or differs everywhere, has no region."""
    noise = np.random.default_rng(0).integers(0, 256, FACE.shape, dtype=np.uint8)
    assert forged_region(noise, FACE) == (None, None)
    assert forged_region(FACE, 255 - FACE) == (None, None)


def test_the_nearest_frame_is_taken() -> None:
    """Of all real clips of the group, the frame of the same moment is found, also when clips are shifted."""
    reals = [np.stack([moved(FACE, 6 * i + 30 * clip, 2 * i) for i in range(4)]) for clip in range(2)]
    forged = np.stack([blotched(reals[1][i]) for i in (1, 2, 3)])
    origins = find_origins(forged, reals)
    assert [(origin.clip, origin.frame) for origin in origins] == [(1, 1), (1, 2), (1, 3)]
    assert all(origin.region is not None for origin in origins)
