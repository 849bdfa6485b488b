"""Rolling window of one face: the features, temporal residuals and motion of its newest samples."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from streams.features.face_motion import MotionMeter, Square, is_still
from streams.features.temporal_residuals import FaceContext, ResidualMeter, Residuals


class FaceWindow:
    """Ring buffer of the newest `window` samples of one face, read oldest first.

    The backbone sees each crop by itself, so its features are computed once per crop and buffered. The head's
    logit over the buffered features equals that of the whole model on the same crops. A sample whose feature
    was not computed repeats the one before it, and has no temporal residuals.

    Args:
        window: Capacity in samples.
        feature_dim: Length of a feature vector.
        meter: Residual meter of this face alone; None if the model has no temporal classifier.

    Raises:
        ValueError: `window` or `feature_dim` is below 1.
    """

    def __init__(self, window: int, feature_dim: int, meter: ResidualMeter | None = None) -> None:
        if window < 1 or feature_dim < 1:
            raise ValueError(f"window and feature_dim must be at least 1, not {window} and {feature_dim}")
        self.window = window
        self.feature_dim = feature_dim
        # Each row is stored twice, `window` rows apart, so that the newest samples are always contiguous.
        self._rows = np.zeros((2 * window, feature_dim), np.float32)
        self._pushed = 0
        self._newest_pts_s: float | None = None
        self._meter = meter
        self._residuals: deque[Residuals] = deque(maxlen=window)
        self._motion_meter = MotionMeter()
        self._motion: deque[float] = deque(maxlen=window)
        self._still: bool | None = None if meter else False

    def __len__(self) -> int:
        """Return the number of buffered samples, 0..window."""
        return min(self._pushed, self.window)

    @property
    def fill(self) -> float:
        """Filled share of the window, 0..1."""
        return len(self) / self.window

    @property
    def still(self) -> bool | None:
        """Whether the face is a still image, in which there is no temporal evidence.

        None while the window is too short to decide. False if the model has no temporal classifier.
        """
        return self._still

    def push(
        self,
        pts_s: float,
        crop: NDArray[np.uint8],
        feature: NDArray[np.float32] | None,
        *,
        context: FaceContext | None = None,
        square: Square | None = None,
    ) -> None:
        """Append a sample; the oldest one is dropped if the window is full.

        Args:
            pts_s: Media time in seconds, later than that of the previous sample.
            crop: uint8 RGB `(H, W, 3)`; measured for motion, not kept.
            feature: float32 `(feature_dim,)`; copied. None to repeat the newest one.
            context: The face with its surroundings, measured for temporal residuals; needed with a feature if
                the window has a residual meter. None leaves the sample without residuals.
            square: Part of the frame that the crop shows; None if it is the same for all crops.

        Raises:
            ValueError: The time does not advance (clear the window on a gap), a shape is wrong, there is no
                feature to repeat, or the context is missing.
        """
        newest = self._newest_pts_s
        if newest is not None and not pts_s > newest:
            raise ValueError(f"sample at {pts_s} s is not after the newest at {newest} s")
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
            raise ValueError(f"crop must be uint8 (H, W, 3), not {crop.dtype} {crop.shape}")
        if self._meter is not None and feature is not None and context is None:
            raise ValueError("a window with a residual meter needs the context of each sample with a feature")
        if feature is None:
            if not self._pushed:
                raise ValueError("the first sample of a window needs a feature")
            feature = self._rows[(self._pushed - 1) % self.window]
        if feature.shape != (self.feature_dim,):
            raise ValueError(f"feature must have shape ({self.feature_dim},), not {feature.shape}")
        row = self._pushed % self.window
        self._rows[row] = feature
        self._rows[row + self.window] = feature
        self._pushed += 1
        self._newest_pts_s = pts_s
        if self._meter is not None:
            self._residuals.append(self._meter.skip() if context is None else self._meter.measure(context))
            self._motion.append(self._motion_meter.measure(crop, square or (0, 0, crop.shape[0])))
            self._still = is_still(self._motion, window=self.window)

    def clear(self) -> None:
        """Drop all samples, for example after a gap in the stream."""
        self._pushed = 0
        self._newest_pts_s = None
        self._residuals.clear()
        self._motion.clear()
        self._motion_meter.clear()
        if self._meter is not None:
            self._still = None
            self._meter.clear()

    def window_features(self) -> NDArray[np.float32]:
        """Return the buffered features, oldest first.

        Returns:
            Read-only contiguous view, float32 `(len(self), feature_dim)`, valid until the next `push`.
        """
        end = (self._pushed - 1) % self.window + 1 + self.window if self._pushed else self.window
        view = self._rows[end - len(self) : end]
        view.flags.writeable = False
        return view

    def window_residuals(self) -> Residuals:
        """Return the temporal residuals of the buffered samples, oldest first.

        Returns:
            float32 `(len(self), NUM_RESIDUALS)`, with NaN; see `ResidualMeter.measure`.

        Raises:
            ValueError: The window has no residual meter, or no sample.
        """
        return np.stack(self._residuals)
