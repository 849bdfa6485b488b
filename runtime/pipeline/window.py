"""The rolling buffer of one face: the last samples, each with time, crop, features and flicker."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from streams.features.temporal_residuals import ResidualMeter, Residuals


class FaceWindow:
    """Keeps the newest `window` samples of one face, oldest first.

    Judging the buffered features equals running the full clip through the model, since the backbone sees each
    crop on its own: its work is done once per new crop, not once per crop and window.

    Args:
        window: How many samples are kept.
        feature_dim: Length of a feature vector.
        meter: Measures the flicker of this face, and of no other; None where it is not asked for.
    """

    def __init__(self, window: int, feature_dim: int, meter: ResidualMeter | None = None) -> None:
        if window < 1 or feature_dim < 1:
            raise ValueError(f"window and feature_dim must be at least 1, not {window} and {feature_dim}")
        self.window = window
        self.feature_dim = feature_dim
        # Every row is written twice, `window` rows apart, so that the newest samples always lie in one piece.
        self._rows = np.zeros((2 * window, feature_dim), np.float32)
        self._pushed = 0
        self._samples: deque[tuple[float, NDArray[np.uint8]]] = deque(maxlen=window)
        self._meter = meter
        self._flicker: deque[Residuals] = deque(maxlen=window)

    def __len__(self) -> int:
        """Count the buffered samples, 0..window."""
        return len(self._samples)

    @property
    def fill(self) -> float:
        """The share of the window that is filled, 0..1."""
        return len(self._samples) / self.window

    @property
    def newest_pts_s(self) -> float | None:
        """The media time of the newest sample in seconds; None if the buffer is empty."""
        return self._samples[-1][0] if self._samples else None

    @property
    def pts_s(self) -> tuple[float, ...]:
        """The media times of all samples in seconds, oldest first."""
        return tuple(pts_s for pts_s, _ in self._samples)

    def push(self, pts_s: float, crop: NDArray[np.uint8], feature: NDArray[np.float32]) -> None:
        """Take in a new sample; the oldest leaves if the window is full.

        Args:
            pts_s: Media time in seconds, later than the newest one held.
            crop: uint8 RGB `(H, W, 3)`; held, not copied.
            feature: float32 `(feature_dim,)`; copied.

        Raises:
            ValueError: Time does not advance (clear the buffer on a gap), or a shape is wrong.
        """
        newest = self.newest_pts_s
        if newest is not None and not pts_s > newest:
            raise ValueError(f"sample at {pts_s} s is not after the newest at {newest} s")
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
            raise ValueError(f"crop must be uint8 (H, W, 3), not {crop.dtype} {crop.shape}")
        if feature.shape != (self.feature_dim,):
            raise ValueError(f"feature must have shape ({self.feature_dim},), not {feature.shape}")
        row = self._pushed % self.window
        self._rows[row] = feature
        self._rows[row + self.window] = feature
        self._pushed += 1
        self._samples.append((pts_s, crop))
        if self._meter is not None:
            self._flicker.append(self._meter.measure(crop))

    def clear(self) -> None:
        """Drop all samples: what comes next does not continue what was there."""
        self._pushed = 0
        self._samples.clear()
        self._flicker.clear()
        if self._meter is not None:
            self._meter.clear()

    def window_features(self) -> NDArray[np.float32]:
        """Give the buffered features, oldest first, as the head wants them.

        Returns:
            A read-only, contiguous view, float32 `(len(self), feature_dim)`, valid until the next `push`.
        """
        end = (self._pushed - 1) % self.window + 1 + self.window if self._pushed else self.window
        view = self._rows[end - len(self._samples) : end]
        view.flags.writeable = False
        return view

    def window_residuals(self) -> Residuals:
        """Give the flicker of the buffered samples, oldest first.

        Returns:
            float32 `(len(self), RESIDUALS)`.

        Raises:
            ValueError: There is no meter, or no sample.
        """
        return np.stack(self._flicker)

    def crops(self) -> list[NDArray[np.uint8]]:
        """Give the buffered crops, uint8 RGB `(H, W, 3)` each, oldest first."""
        return [crop for _, crop in self._samples]
