"""What a reader tells about its source while it reads."""

from __future__ import annotations

from dataclasses import dataclass

from streams.errors import SourceError

__all__ = ["Connected", "Connecting", "Disconnected", "Ended", "Event", "Failed", "FastEnough", "TooSlow"]


@dataclass(frozen=True, slots=True)
class Connecting:
    """The source is being opened."""

    attempt: int
    """1 for the first time and again after every good connection."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The first picture of a connection has been decoded."""

    width: int
    height: int
    fps: float | None
    """Frames per second as the source states them; None if it does not."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The source went away, or did not answer; it will be tried again."""

    error: SourceError
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The source cannot be read and will not be tried again; the last event."""

    error: SourceError


@dataclass(frozen=True, slots=True)
class TooSlow:
    """The source's pictures come too rarely for the model."""

    fps: float
    needed_hz: float
    """The lowest frame rate that would do."""


@dataclass(frozen=True, slots=True)
class FastEnough:
    """A source that was too slow has recovered."""

    fps: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A finite source has been read to its end; the last event."""


Event = Connecting | Connected | Disconnected | Failed | TooSlow | FastEnough | Ended
