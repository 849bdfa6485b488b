"""Interface of an open source: decoded frames with their times, and the timeouts for opening and reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av

from streams.input.capture.delivery import Delivery

__all__ = ["Capture", "DecodedFrame", "Timeouts"]


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Longest silence of a source before it is an error.

    Args:
        open_s: While connecting: for the response, and again for the first data.
        read_s: Between two packets, at most 1.5: FFmpeg can only be interrupted by its own timeout, and
            `Reader.stop` must return within two seconds.
        segment_s: Between two packets of a broadcast in segments, such as HLS.

    Raises:
        ValueError: A value is out of its range.
    """

    open_s: float = 5.0
    read_s: float = 1.5
    segment_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.open_s > 0:
            raise ValueError(f"open_s must be positive, not {self.open_s}")
        if not self.segment_s > 0:
            raise ValueError(f"segment_s must be positive, not {self.segment_s}")
        if not 0 < self.read_s <= 1.5:
            raise ValueError(f"read_s must be in (0, 1.5], not {self.read_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """Decoded frame and its times."""

    image: av.VideoFrame
    pts: int
    """Presentation time in units of `time_base`."""

    time_base: Fraction
    """Seconds per unit of `pts`."""

    captured_s: float | None
    """Capture time of a live frame in seconds of the capture's clock; None for a finite source."""

    decode_ms: float
    pixel_aspect: Fraction = Fraction(1)
    """Width of the image's pixels divided by their height."""


class Capture(Protocol):
    """Open source."""

    fps: float | None
    """Frame rate that the source states; None if it states none."""

    delivery: Delivery
    """How the source delivers its frames, and whether it has an end."""

    corrupt: int
    """Number of frames lost so far because of damaged data."""

    skipped: int
    """Number of packets skipped so far to catch up with a live source."""

    wrong_clock: str | None
    """Why arrival times are used in place of the source's time stamps; None if they are not."""

    not_accelerated: str | None
    """Why the CPU decodes a source that hardware is to decode; None otherwise."""

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode every frame until the source ends or is stopped; raises SourceError."""

    def close(self) -> None:
        """Close the source."""
