"""One due sample of a source: a decoded frame with its times and its segment."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

__all__ = ["Frame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Due sample of a source."""

    image: av.VideoFrame
    """The decoded frame in its native pixel format, upright."""

    pts: int
    """Presentation time in units of `time_base`."""

    time_base: Fraction
    """Seconds per unit of `pts`."""

    captured: float | None
    """Estimated capture time of a live frame in Unix seconds; None for a finite source."""

    decode_ms: float
    """Time spent decoding the frame's packet, in milliseconds."""

    connection: int
    """Number of the connection to the source that the frame came from, from 1."""

    segment: int
    """Number of the run of samples that may share a window; see `streams.input.continuity`."""

    previous: av.VideoFrame | None = None
    """The frame decoded shortly before this one, of the same size and upright; None if there is none."""

    @property
    def pts_s(self) -> float:
        """Return the presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.image.height
