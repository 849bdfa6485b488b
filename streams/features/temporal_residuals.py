"""Measures what changes in a face from crop to crop and is not its motion.

A forgery is made frame by frame: light, colour and form of what was put in tremble where those of a face do
not. Each crop is laid onto an earlier one by dense optical flow, and what still differs is measured in parts
of the face.

    meter = FlickerMeter(margin=1.02)
    for crop in crops:
        flicker = meter.measure(crop)         # float32 (FLICKER,)

Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (the flow); Zheng et al.,
"Exploring Temporal Coherence for More General Video Face Forgery Detection", ICCV 2021 (that time tells).
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LAGS = (1, 2)
"""How many samples lie between the crops that are compared."""
KINDS = ("fine", "coarse", "texture", "motion", "warp", "colour")
"""What is measured: what differs within cells, cell by cell, the texture itself, how far cells moved, how
unevenly, and how their colour differs."""
PARTS = ("inner", "face", "edge", "mouth", "eyes", "nose")
NUM_RESIDUALS = len(LAGS) * len(KINDS) * len(PARTS)

SIDE, CELLS = 112, 14
"""Crops are compared at so many pixels, so that a model's input size does not matter, in so many cells a
side."""
SOFT = 0.8
"""Deviation in pixels of the blur before: noise and compression of single pixels are no flicker."""
FLOOR = np.array([0.1, 0.1, 0.1, 0.1, 0.02, 0.1], np.float32)
"""Is added before the logarithm, by kind: grey levels, or pixels at `SIDE`. Less than that tells nothing."""
ASPECT = 0.76
"""Width of a face box over its height."""

Residuals = NDArray[np.float32]


class _Seen(NamedTuple):
    colour: NDArray[np.uint8]
    grey: NDArray[np.uint8]


class ResidualMeter:
    """Measures the crops of one face in their order.

    Args:
        margin: Side of the crops over the height of the face box.
    """

    def __init__(self, margin: float) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._parts = _parts(margin)
        self._seen: deque[_Seen] = deque(maxlen=max(LAGS))
        self._grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).astype(np.float32)

    def measure(self, crop: NDArray[np.uint8]) -> Residuals:
        """Compare a crop with those before it.

        Args:
            crop: uint8 RGB `(H, H, 3)`.

        Returns:
            float32 `(NUM_RESIDUALS,)`, logarithms: the kinds of the first lag, each in all parts, then those of the
            second. NaN for a lag that reaches before the first crop.
        """
        how = cv2.INTER_AREA if crop.shape[0] > SIDE else cv2.INTER_LINEAR
        colour = cv2.GaussianBlur(cv2.resize(crop, (SIDE, SIDE), interpolation=how), (0, 0), SOFT)
        now = _Seen(np.asarray(colour, np.uint8), np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)))
        measured = [
            self._compare(self._seen[-lag], now)
            if lag <= len(self._seen)
            else np.full(NUM_RESIDUALS // len(LAGS), np.nan, np.float32)
            for lag in LAGS
        ]
        self._seen.append(now)
        return np.concatenate(measured)

    def clear(self) -> None:
        """Forget the crops: what comes next does not continue what was there."""
        self._seen.clear()

    def _compare(self, before: _Seen, now: _Seen) -> Residuals:
        flow = self._flow.calc(before.grey, now.grey, None)  # type: ignore[call-overload]
        there = self._grid + flow
        laid = cv2.remap(now.colour, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        differs = laid.astype(np.float32) - before.colour
        coarse = _cells(differs)
        grey = coarse @ np.array([0.299, 0.587, 0.114], np.float32)
        texture = cv2.absdiff(before.grey, cv2.GaussianBlur(before.grey, (5, 5), 0)).astype(np.float32)
        moved = _cells(flow)
        kinds = np.stack(
            [
                _cells(np.abs(differs - _pixels(coarse)).mean(2)),
                np.abs(coarse).mean(2),
                _cells(texture),
                np.abs(moved).mean(2),
                _cells(np.abs(flow - _pixels(moved)).mean(2)),
                np.abs(coarse - grey[..., None]).mean(2),
            ]
        )
        in_parts = kinds.reshape(len(KINDS), -1) @ self._parts.T
        return np.asarray(np.log(in_parts + FLOOR[:, None]).ravel(), np.float32)


def clip_residuals(crops: NDArray[np.uint8], margin: float) -> Residuals:
    """Measure the crops of a clip.

    Args:
        crops: uint8 RGB `(T, H, H, 3)`, oldest first.
        margin: Side of the crops over the height of the face box.

    Returns:
        float32 `(T, NUM_RESIDUALS)`.
    """
    meter = ResidualMeter(margin)
    return np.stack([meter.measure(crop) for crop in crops])


def _cells(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(image, (CELLS, CELLS), interpolation=cv2.INTER_AREA), np.float32)


def _pixels(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=8)
def _parts(margin: float) -> NDArray[np.float32]:
    """Give each part's weights of the cells, `(parts, CELLS²)`, each summing to 1."""
    steps = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * margin
    # Right and down from the middle of the face, in halves of its height.
    right, down = np.meshgrid(steps, steps)
    off = np.hypot(right / ASPECT, down)
    masks = {
        "inner": off < 0.55,
        "face": off < 0.85,
        "edge": (off > 0.85) & (off < 1.1),
        "mouth": (np.abs(right) < 0.4) & (down > 0.27) & (down < 0.8),
        "eyes": (np.abs(right) < 0.58) & (down > -0.43) & (down < -0.02),
        "nose": (np.abs(right) < 0.26) & (down > -0.14) & (down < 0.3),
    }
    weights = np.stack([_cells(masks[part].astype(np.float32)).ravel() for part in PARTS])
    return np.asarray(weights / np.maximum(weights.sum(1, keepdims=True), 1e-6), np.float32)
