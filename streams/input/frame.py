"""One decoded picture on its way to the detector, with the times that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

__all__ = ["Frame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A due sample of a source: the picture as decoded and what is known of its time."""

    image: av.VideoFrame
    """The decoded picture in its native pixel format, upright."""

    pts: int
    """Presentation time in units of `time_base`."""

    time_base: Fraction
    """Seconds per unit of `pts`."""

    captured: float | None
    """Unix seconds at which a live source is estimated to have captured the picture; None for files."""

    decode_ms: float
    """Milliseconds spent decoding the packet this picture came from."""

    missed: int
    """Due samples lost since the previous delivered one."""

    gap: bool
    """Whether this frame does not follow the previous delivered one, or there is none: more than 1.5 nominal
    intervals passed, or more than 2.5 where a single sample was lost between them and none just before."""

    @property
    def pts_s(self) -> float:
        """Return the presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def width(self) -> int:
        """Return the width of the picture in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Return the height of the picture in pixels."""
        return self.image.height
