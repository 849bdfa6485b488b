"""Limits of image quality beyond which a face has no verdict, and the state of one face against them.

    gate = QualityGate(QualityLimits(), samples=8)
    gate.add(SampleQuality(height=120, roll=3, yaw=8, brightness=104, chroma=40))
    gate.reason  # None: a decision is allowed

No I/O and no clock. The limits are those of `docs/decisions/picture-quality.md`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from runtime.messages import UncertainReason


class SampleQuality(NamedTuple):
    """Measures of one face in one sample.

    Attributes:
        height: Height of the face in pixels of the frame.
        roll: Rotation in the image in degrees; see `streams.faces.detector.Detection`.
        yaw: Rotation about the vertical axis of the head in degrees.
        brightness: Mean luma of the face, 0..255.
        chroma: Mean difference of the channels in the face; see `measure_chroma`.
    """

    height: float
    roll: float
    yaw: float
    brightness: float
    chroma: float


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Limits beyond which a face is `uncertain`, whatever its score.

    Args:
        max_roll: Rotation in the image in degrees; the model knows upright faces only.
        max_yaw: Rotation about the vertical axis of the head in degrees.
        min_height: Height of the face in pixels of the frame.
        min_brightness: Mean luma of the face, 0..255.
        min_chroma: Mean difference of the channels in the face, 0..255; grey images have none.
        hysteresis: A reason ends only where the measure is better than its limit by this share, 0..1.

    Raises:
        ValueError: A limit is not positive, or `hysteresis` is outside 0..1.
    """

    max_roll: float = 50.0
    max_yaw: float = 60.0
    min_height: float = 26.0
    min_brightness: float = 20.0
    min_chroma: float = 3.0
    hysteresis: float = 0.1

    def __post_init__(self) -> None:
        limits = self.max_roll, self.max_yaw, self.min_height, self.min_brightness, self.min_chroma
        if not min(limits) > 0:
            raise ValueError(f"every limit of the image quality must be positive: {self}")
        if not 0 <= self.hysteresis < 1:
            raise ValueError(f"hysteresis must be within 0..1, not {self.hysteresis}")

    def reason(self, quality: SampleQuality, previous: UncertainReason | None) -> UncertainReason | None:
        """Return the first limit that is exceeded; None if there is none.

        Args:
            quality: Measures of the face.
            previous: The last result for this face.
        """
        excess: tuple[tuple[UncertainReason, float], ...] = (
            ("turned", abs(quality.roll) / self.max_roll),
            ("turned_away", abs(quality.yaw) / self.max_yaw),
            ("too_small", self.min_height / max(quality.height, 1e-9)),
            ("dark", self.min_brightness / max(quality.brightness, 1e-9)),
            ("no_colour", self.min_chroma / max(quality.chroma, 1e-9)),
        )
        for reason, ratio in excess:
            if ratio > (1 - self.hysteresis if reason == previous else 1):
                return reason
        return None


class QualityGate:
    """Image quality of one face: the median of its newest samples against the limits.

    Args:
        limits: The limits.
        samples: Number of samples in the median, at least 1.
    """

    def __init__(self, limits: QualityLimits, *, samples: int) -> None:
        self.reason: UncertainReason | None = None
        """Why the image does not allow a decision; None if it does."""
        self._limits = limits
        self._samples: deque[SampleQuality] = deque(maxlen=max(1, samples))

    def add(self, quality: SampleQuality) -> None:
        """Add the next sample."""
        # The sign of an angle does not matter, and 179 and -179 degrees are alike.
        self._samples.append(quality._replace(roll=abs(quality.roll), yaw=abs(quality.yaw)))
        median = SampleQuality(*np.median(self._samples, axis=0).tolist())
        self.reason = self._limits.reason(median, self.reason)

    def clear(self) -> None:
        """Forget all samples, because the next one does not follow them."""
        self.reason = None
        self._samples.clear()
