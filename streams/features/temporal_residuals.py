"""Temporal residuals: what changes in a face, and is not its motion, compared with its surroundings.

Most deepfakes are synthesised frame by frame, so light, colour and shape of the synthesised region vary in
time where those of a real face do not. Noise, coding and the shutter of a camera change a face too, but they
change the hair, the neck and the background just as much. Two crops that contain the surroundings are
therefore compared:

1. Dense optical flow from the earlier crop to the current one is computed.
2. The current crop is warped back onto the earlier one, which removes the motion.
3. Five measures (`MEASURES`) are computed in a grid of cells, from the warped difference and the flow.
4. Each measure is averaged over five regions of the face (`REGIONS`) and over a ring around it. The logarithm
   of the ratio of the two is returned: 0 where the face changes as its surroundings do.

A sample is compared with the frame decoded just before it, in which a face has hardly moved, and with the
sample two before it (`COMPARISONS`). Beside these ratios, the residuals contain the sums from which follows
how face and surroundings change from frame to frame; see `streams.features.frame_changes`.

    meter = ResidualMeter()
    residuals = meter.measure(cut_context(frame, face.box))      # float32 (NUM_RESIDUALS,)

Sources: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (optical flow); Zheng et
al., "Exploring Temporal Coherence for More General Video Face Forgery Detection", ICCV 2021 (temporal
incoherence as a cue).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.features.face_regions import REGIONS, Visible, cell_means, enlarged, region_weights, used_part
from streams.features.frame_changes import NUM_SUMS, ChangeMeter
from streams.features.motion_compensation import MotionCompensation

COMPARISONS = ("frame", "samples")
"""Images that a sample is compared with: the frame decoded before it, and the sample `LAG` before it."""
LAG = 2
"""Distance in samples of the second comparison."""
MEASURES = ("fine", "coarse", "broad", "warp", "colour")
"""Measures per cell:

fine      mean absolute difference after the cell means are subtracted, in grey levels
coarse    absolute difference of the cell means, in grey levels
broad     the same of the mean of a block of cells around it, in grey levels
warp      mean absolute deviation of the flow from the cell means, in pixels
colour    difference of the cell means without its grey part, in grey levels
"""
NUM_RATIOS = len(COMPARISONS) * len(MEASURES) * len(REGIONS)
"""Number of ratios of a sample."""
NUM_RESIDUALS = NUM_RATIOS + NUM_SUMS
"""Number of values of a sample: the ratios, then the sums of its steps."""

VERSION = 6
"""Number of this definition. Stored residuals of another one cannot be used."""

SIZE = 180
"""Side of the crops in pixels."""
BLUR_SIGMA = 0.7
"""Standard deviation in pixels of the blur before comparison, which suppresses sensor and coding noise."""
FLOORS = np.array([0.1, 0.1, 0.1, 0.02, 0.1], np.float32)
"""Added to each measure before the logarithm, in the measure's unit; smaller values carry no information."""
BROAD = 13
"""Cells per side of the blocks of the measure `broad`, about the height of a face."""
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)

Residuals = NDArray[np.float32]
WHOLE: Visible = (0.0, 0.0, 1.0, 1.0)


def every_nth(residuals: Residuals, every: int) -> Residuals:
    """Return the residuals of a clip as if only every n-th sample had been measured.

    Args:
        residuals: Residuals of all samples, float32 `(T, NUM_RESIDUALS)`.
        every: Samples from one that is measured to the next, at least 1.

    Returns:
        float32 `(T, NUM_RESIDUALS)`, NaN where there would be none.
    """
    thinned = residuals.copy()
    for first in range(1, every):
        thinned[first::every] = np.nan
    if LAG % every:
        thinned[:, NUM_RATIOS // len(COMPARISONS) : NUM_RATIOS] = np.nan
    return thinned


def without_frames(residuals: Residuals) -> Residuals:
    """Return residuals as if there were no frame between two samples.

    Args:
        residuals: float32 `(..., NUM_RESIDUALS)`.

    Returns:
        The same with NaN in place of all that is measured from frame to frame.
    """
    slow = residuals.copy()
    slow[..., : NUM_RATIOS // len(COMPARISONS)] = np.nan
    slow[..., NUM_RATIOS:] = np.nan
    return slow


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceContext:
    """A face with its surroundings, in a sample and in the frames before it.

    Args:
        current: Crop of the sample, RGB uint8 `(SIZE, SIZE, 3)`, centred on the face box.
        previous: The same part of the frame before it; None if there is none to compare with.
        history: The same part of the frames before it and of the sample, oldest first, for `ChangeMeter`.
        visible: Part of the crops that is inside the frame.
    """

    current: NDArray[np.uint8]
    previous: NDArray[np.uint8] | None = None
    history: tuple[NDArray[np.uint8], ...] = ()
    visible: Visible = WHOLE


class _Crop(NamedTuple):
    rgb: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    visible: Visible


class ResidualMeter:
    """Temporal residuals of one face; samples are passed in the order of time."""

    def __init__(self) -> None:
        self._motion = MotionCompensation(SIZE, _flow())
        self._changes = ChangeMeter()
        self._samples: deque[_Crop | None] = deque(maxlen=LAG)

    def measure(self, context: FaceContext) -> Residuals:
        """Compare a sample with what came before it.

        Args:
            context: The sample.

        Returns:
            float32 `(NUM_RESIDUALS,)`: natural logarithms of ratios, ordered by comparison, then measure,
            then region, and the sums of `ChangeMeter.measure`. NaN where there is nothing to compare with,
            where two frames are the same, and where too little of a region or of the surroundings is inside
            the frame.
        """
        current = _prepared(context.current, context.visible)
        frame = None if context.previous is None else _prepared(context.previous, context.visible)
        followed = len(self._samples) == LAG
        sample = self._samples[0] if followed else None
        self._samples.append(current)
        ratios = [self._compare(earlier, current) for earlier in (frame, sample)]
        # Earlier frames may show another scene, unless the face has been followed since.
        sums = self._changes.measure(context.history if followed else (), context.visible)
        return np.concatenate([*ratios, sums])

    def skip(self) -> Residuals:
        """Pass over a sample that is not measured, and with which no later one is compared.

        Returns:
            float32 `(NUM_RESIDUALS,)`, all NaN.
        """
        self._samples.append(None)
        return np.full(NUM_RESIDUALS, np.nan, np.float32)

    def clear(self) -> None:
        """Forget the previous samples, because the next one does not follow them."""
        self._samples.clear()

    def _compare(self, earlier: _Crop | None, current: _Crop) -> Residuals:
        """Return the residuals of one comparison, float32 (measures * regions,)."""
        if earlier is None or np.array_equal(earlier.grey, current.grey):
            return np.full(NUM_RATIOS // len(COMPARISONS), np.nan, np.float32)
        flow = self._motion.flow(earlier.grey, current.grey)
        difference = self._motion.difference(earlier.rgb, current.rgb, flow)
        cell_difference, cell_flow = cell_means(difference), cell_means(flow)
        measures = np.stack(
            [
                cell_means(cv2.absdiff(difference, enlarged(cell_difference, difference.shape))).mean(2),
                np.abs(cell_difference).mean(2),
                np.abs(cv2.blur(cell_difference, (BROAD, BROAD))).mean(2),
                cell_means(cv2.absdiff(flow, enlarged(cell_flow, flow.shape))).mean(2),
                np.abs(cell_difference - cell_difference @ LUMA.T).mean(2),
            ]
        )
        weights = region_weights(earlier.visible, current.visible)
        per_region = np.log(measures.reshape(len(MEASURES), -1) @ weights.T + FLOORS[:, None])
        return np.asarray(per_region[:, :-1] - per_region[:, -1:], np.float32).ravel()


def _prepared(crop: NDArray[np.uint8], visible: Visible) -> _Crop:
    rgb = cv2.GaussianBlur(used_part(crop), (0, 0), BLUR_SIGMA)
    return _Crop(np.asarray(rgb, np.uint8), np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)), visible)


def _flow() -> cv2.DISOpticalFlow:
    """Return the medium preset with less work per patch, in 0.6 of its time; flows differ by 0.1 pixels."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setPatchStride(4)
    flow.setGradientDescentIterations(12)
    flow.setVariationalRefinementIterations(3)
    return flow
