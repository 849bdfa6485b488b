"""Delivery of a source's frames: in real time or faster, with or without an end. No I/O and no clock.

It is decided by what the open container states, not by the address: a playlist may be a recording or a
broadcast, and a path of any name may be a camera.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Delivery", "PacketHistory", "delivery_of"]

# Formats that are fetched in segments, several seconds at once. The size is that of the playlist.
_SEGMENTED_FORMATS = frozenset({"hls", "dash"})
# More than FFmpeg starts again with, which are the last three segments of HLS and the last minute of DASH: at
# 60 frames a second 3600 packets, even with segments of 20 s. Each takes 150 bytes.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a source delivers its frames.

    Args:
        real_time: Whether frames arrive as they are captured, and newer ones replace older ones; otherwise
            the source waits for its consumer.
        finite: Whether the source has an end. Any other source that stops is opened again.
        segmented: Whether frames arrive in segments, with seconds of silence between them.
    """

    real_time: bool
    finite: bool
    segmented: bool = False


def delivery_of(*, live: bool | None, formats: str, duration: int | None, size: int) -> Delivery:
    """Return the delivery of an open source.

    Args:
        live: Whether the kind of source is live; None if only the container can tell.
        formats: FFmpeg's names of the container's format, with commas between.
        duration: Duration that the container states, in any unit; None or 0 if it states none.
        size: Size in bytes that the server states; negative if it states none.
    """
    if live is not None:
        return Delivery(real_time=live, finite=not live)
    segmented = bool(_SEGMENTED_FORMATS & set(formats.split(",")))
    finite = bool(duration and duration > 0) or (size > 0 and not segmented)
    return Delivery(real_time=not finite and not segmented, finite=finite, segmented=segmented)


class PacketHistory:
    """Packets that a broadcast has delivered, over several connections.

    After a publisher has stopped, its playlist still lists the last segments. Their packets are skipped.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._known: set[int] = set()

    def add(self, pts: int | None, data: bytes) -> bool:
        """Add a packet; return whether it is new.

        Args:
            pts: Its presentation time stamp.
            data: Its content.
        """
        key = hash((pts, data))
        if key in self._known:
            return False
        self._known.add(key)
        self._order.append(key)
        if len(self._order) > _REMEMBERED:
            self._known.discard(self._order.popleft())
        return True
