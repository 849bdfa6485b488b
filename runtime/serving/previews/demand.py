"""Requests of clients for frames: which streams, at which width and rate.

    demand = PreviewDemand()
    demand.request(PreviewRequest(stream="cam", width=640, rate_hz=8))
    demand.requested("cam")  # RequestedFormat(width=640, rate_hz=8.0)

No I/O, no clock: requests and the media times of frames are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from runtime.client_messages import PreviewRequest
from runtime.pipeline.decision import RateLimit

# A request is rounded down to one of these widths, so that a frame is encoded at most once for each of them,
# however many clients there are.
WIDTHS = (160, 320, 640, 960)
# Streams that one client may name; the oldest request is forgotten.
MAX_REQUESTS = 256

Formats: TypeAlias = Mapping[int, float]
"""Wanted widths of a stream in pixels, each one of `WIDTHS`, with the highest rate in Hz."""


@dataclass(frozen=True, slots=True)
class RequestedFormat:
    """Frames that a client wants of one stream.

    Args:
        width: Maximum width in pixels, one of `WIDTHS`.
        rate_hz: Maximum number of frames per second.
    """

    width: int
    rate_hz: float


class PreviewDemand:
    """Requests of one client."""

    def __init__(self) -> None:
        self._formats: dict[str | None, RequestedFormat | None] = {}
        self._rates: dict[str, RateLimit] = {}

    def __bool__(self) -> bool:
        return any(self._formats.values())

    def request(self, request: PreviewRequest) -> None:
        """Replace the request about the same stream."""
        self._rates.clear()
        self._formats.pop(request.stream, None)
        if request.width is None:
            return
        width = max((width for width in WIDTHS if width <= request.width), default=None)
        self._formats[request.stream] = None if width is None else RequestedFormat(width, request.rate_hz)
        if len(self._formats) > MAX_REQUESTS:
            del self._formats[next(iter(self._formats))]

    def requested(self, stream: str) -> RequestedFormat | None:
        """Return what the client wants of a stream; None if nothing."""
        return self._formats.get(stream, self._formats.get(None))

    def due(self, stream: str, width: int, pts_s: float) -> bool:
        """Return whether an encoded frame is to be sent to the client.

        Args:
            stream: Name of the stream.
            width: Width for which the frame was encoded, one of `WIDTHS`.
            pts_s: Media time of the frame in seconds. Call it for every encoded frame, in order.
        """
        wanted = self.requested(stream)
        if wanted is None or wanted.width != width:
            return False
        if stream not in self._rates:
            self._rates[stream] = RateLimit(wanted.rate_hz)
        return self._rates[stream].due(pts_s)


def formats_of(demands: Iterable[PreviewDemand], stream: str) -> Formats:
    """Return the formats in which clients want a stream, each with the highest rate of them.

    Args:
        demands: Requests of the clients.
        stream: Name of the stream.
    """
    formats: dict[int, float] = {}
    for demand in demands:
        wanted = demand.requested(stream)
        if wanted is not None:
            formats[wanted.width] = max(wanted.rate_hz, formats.get(wanted.width, 0.0))
    return formats


class EncodingSchedule:
    """Selection of the frames that are encoded, and of their widths."""

    def __init__(self) -> None:
        self._formats: Callable[[str], Formats] = lambda stream: {}
        self._rates: dict[str, dict[int, RateLimit]] = {}

    def update(self, formats: Callable[[str], Formats]) -> None:
        """Take over what is wanted of each stream; call it after every change.

        Args:
            formats: Returns what is wanted of a stream.
        """
        self._formats = formats
        self._rates.clear()

    def due(self, stream: str, pts_s: float) -> frozenset[int]:
        """Return the widths at which a frame is to be encoded; empty if no client wants it.

        Args:
            stream: Name of the stream.
            pts_s: Media time of the frame in seconds. Call it for every frame, in order.
        """
        rates = self._rates.get(stream)
        if rates is None:
            formats = self._formats(stream)
            rates = self._rates[stream] = {width: RateLimit(rate_hz) for width, rate_hz in formats.items()}
        return frozenset(width for width, rate in rates.items() if rate.due(pts_s))
