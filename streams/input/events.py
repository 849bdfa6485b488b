"""Events that a reader reports about its source."""

from __future__ import annotations

from dataclasses import dataclass

from streams.errors import SourceError

__all__ = [
    "Connected",
    "Connecting",
    "Disconnected",
    "Ended",
    "Event",
    "Failed",
    "FastEnough",
    "NotAccelerated",
    "TooSlow",
    "WrongClock",
]


@dataclass(frozen=True, slots=True)
class Connecting:
    """Start of an attempt to open the source."""

    attempt: int
    """1 for the first attempt, and again after every successful connection."""


@dataclass(frozen=True, slots=True)
class Connected:
    """First decoded frame of a connection."""

    width: int
    height: int
    fps: float | None
    """Frame rate that the source states; None if it states none."""


@dataclass(frozen=True, slots=True)
class NotAccelerated:
    """Decoding by the CPU of a source that is to be decoded by hardware; follows `Connected`."""

    hwaccel: str
    """The hardware, by FFmpeg's name."""

    reason: str
    """Why it does not decode, in a few words."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Lost connection or failed attempt; the reader will retry."""

    error: SourceError
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Final failure; the last event."""

    error: SourceError


@dataclass(frozen=True, slots=True)
class TooSlow:
    """Frame rate below the model's minimum."""

    fps: float
    needed_hz: float
    """Lowest acceptable frame rate."""


@dataclass(frozen=True, slots=True)
class FastEnough:
    """Recovery of the frame rate after `TooSlow`."""

    fps: float


@dataclass(frozen=True, slots=True)
class WrongClock:
    """Unusable time stamps of a live source; arrival times are used instead."""

    reason: str
    """Description of the fault, in a few words."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Regular end of a finite source; the last event."""


Event = (
    Connecting
    | Connected
    | NotAccelerated
    | Disconnected
    | Failed
    | TooSlow
    | FastEnough
    | WrongClock
    | Ended
)
