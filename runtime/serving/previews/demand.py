"""Requests of clients for frames: which streams, at which width and rate.

    demand = PreviewDemand()
    demand.request(PreviewRequest(stream="cam", width=640, rate_hz=8))
    demand.wish("cam")  # Wish(width=640, rate_hz=8.0)

No I/O, no clock: requests and the media times of frames are passed in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from runtime.client_messages import PreviewRequest
from runtime.pipeline.decision import VerdictRate

# A request is rounded down to one of these widths, so that a frame is encoded at most once for each of them,
# however many clients there are.
WIDTHS = (160, 320, 640, 960)
# Streams that one client may name; the oldest request is forgotten.
MAX_REQUESTS = 256


@dataclass(frozen=True, slots=True)
class Wish:
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
        self._wishes: dict[str | None, Wish | None] = {}
        self._rates: dict[str, VerdictRate] = {}

    def __bool__(self) -> bool:
        return any(self._wishes.values())

    def request(self, request: PreviewRequest) -> None:
        """Replace the request about the same stream."""
        self._rates.clear()
        self._wishes.pop(request.stream, None)
        if request.width is None:
            return
        width = max((width for width in WIDTHS if width <= request.width), default=None)
        self._wishes[request.stream] = None if width is None else Wish(width, request.rate_hz)
        if len(self._wishes) > MAX_REQUESTS:
            del self._wishes[next(iter(self._wishes))]

    def wish(self, stream: str) -> Wish | None:
        """Return what the client wants of a stream; None if nothing."""
        return self._wishes.get(stream, self._wishes.get(None))

    def due(self, stream: str, width: int, pts_s: float) -> bool:
        """Return whether an encoded frame is to be sent to the client.

        Args:
            stream: Name of the stream.
            width: Width for which the frame was encoded, one of `WIDTHS`.
            pts_s: Media time of the frame in seconds. Call it for every encoded frame, in order.
        """
        wish = self.wish(stream)
        if wish is None or wish.width != width:
            return False
        if stream not in self._rates:
            self._rates[stream] = VerdictRate(wish.rate_hz)
        return self._rates[stream].due(pts_s)


class EncodingSchedule:
    """Selection of the frames that are encoded, and of their widths, for all clients together."""

    def __init__(self) -> None:
        self._demands: Collection[PreviewDemand] = ()
        self._rates: dict[str, dict[int, VerdictRate]] = {}

    def update(self, demands: Collection[PreviewDemand]) -> None:
        """Take over the requests of all clients; call it after every change."""
        self._demands = demands
        self._rates.clear()

    def due(self, stream: str, pts_s: float) -> frozenset[int]:
        """Return the widths at which a frame is to be encoded; empty if no client wants it.

        Args:
            stream: Name of the stream.
            pts_s: Media time of the frame in seconds. Call it for every frame, in order.
        """
        if not self._demands:
            return frozenset()
        rates = self._rates.get(stream)
        if rates is None:
            rates = self._rates[stream] = self._max_rates(stream)
        return frozenset(width for width, rate in rates.items() if rate.due(pts_s))

    def _max_rates(self, stream: str) -> dict[int, VerdictRate]:
        wishes = [wish for demand in self._demands if (wish := demand.wish(stream)) is not None]
        return {
            width: VerdictRate(max(wish.rate_hz for wish in wishes if wish.width == width))
            for width in {wish.width for wish in wishes}
        }
