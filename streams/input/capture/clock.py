"""When a live picture was captured, and what to leave out when the reader falls behind: pure arithmetic."""

from __future__ import annotations

__all__ = ["CaptureClock", "CatchUp"]

_DRIFT = 1e-4  # seconds per second: two quartz clocks differ by less, and a reader that is too slow by more
_JUMP_S = 1.0  # reordered pictures step back by less, a source that starts anew by more


class CaptureClock:
    """Ties a live source's media time to the reader's clock.

    The smallest delay between media time and arrival seen since connecting is taken for the path's own, so a
    reader or a network that falls behind shows as latency. The minimum may rise by 100 parts per million: a
    camera whose clock is slow by that much would otherwise seem to have a growing latency.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._arrival_s = 0.0
        self._pts_s = 0.0

    def observe(self, arrival_s: float, pts_s: float) -> None:
        """Take in one packet.

        Args:
            arrival_s: When it arrived, in seconds of the reader's clock.
            pts_s: Its media time in seconds.
        """
        offset_s = arrival_s - pts_s
        if self._offset_s is not None and pts_s > self._pts_s - _JUMP_S:
            offset_s = min(offset_s, self._offset_s + _DRIFT * (arrival_s - self._arrival_s))
        self._offset_s, self._arrival_s, self._pts_s = offset_s, arrival_s, pts_s

    def captured_s(self, pts_s: float) -> float | None:
        """Return when the picture of that media time was captured, in seconds of the reader's clock."""
        return None if self._offset_s is None else self._offset_s + pts_s


class CatchUp:
    """Decides which packets a live reader decodes when decoding is slower than the camera.

    Every picture needs the ones before it, so the only way to catch up is to leave out all packets up to a
    keyframe that is fresh again.

    Args:
        limit_s: How far the reader may fall behind before it skips.
        patience_s: How long it looks for a fresh keyframe before it takes the next one as it is: then the
            delay is not its own but the network's, and skipping does not help.
    """

    def __init__(self, *, limit_s: float = 1.0, patience_s: float = 3.0) -> None:
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._floor_s = 0.0
        self._since_s: float | None = None

    @property
    def skipping(self) -> bool:
        """Return whether packets are being left out."""
        return self._since_s is not None

    def wants(self, *, lag_s: float, keyframe: bool, now_s: float) -> bool:
        """Decide on one packet.

        Args:
            lag_s: How late it is, at least 0.
            keyframe: Whether decoding can start with it.
            now_s: The time in seconds of the reader's clock.

        Returns:
            Whether to decode it.
        """
        if self._since_s is None:
            self._floor_s = min(self._floor_s, lag_s)
            if lag_s <= self._floor_s + self._limit_s:
                return True
            self._since_s = now_s
        waited_s = now_s - self._since_s
        fresh = lag_s <= self._floor_s + self._limit_s / 2
        # A stream that refreshes bit by bit has no keyframes at all; it is joined anywhere in the end.
        if (keyframe and (fresh or waited_s > self._patience_s)) or waited_s > 2 * self._patience_s:
            self._since_s = None
            if not fresh:
                self._floor_s = lag_s
            return True
        return False
