"""Limits on the video of one sender. No I/O and no clock."""

from __future__ import annotations

from collections import deque

__all__ = ["MAX_FPS", "MAX_PIXELS", "SenderLimits"]

MAX_PIXELS = 3840 * 2160
MAX_FPS = 120
# A burst is not a rate: frames that were held up arrive together, but their media times do not.
_WINDOW_S = 2.0
_MAX_FRAMES = MAX_FPS * round(_WINDOW_S)
# Frames wait to be decoded without a limit of their own, so a decoder that falls behind must end.
_MAX_LAG_S = 5.0


class SenderLimits:
    """Check of each frame of one sender: size, rate, and how far decoding has fallen behind."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=_MAX_FRAMES)
        self._min_offset_s: float | None = None

    def violation(self, *, width: int, height: int, arrival_s: float, pts_s: float) -> str | None:
        """Return the limit that a frame exceeds, in a few words; None if it exceeds none.

        Args:
            width: Width in pixels.
            height: Height in pixels.
            arrival_s: Time at which it was decoded, in monotonic seconds.
            pts_s: Its media time in seconds.
        """
        if width * height > MAX_PIXELS:
            return f"its frames of {width} x {height} are larger than 3840 x 2160"
        if self._times and pts_s < self._times[-1][1]:
            self._min_offset_s = None
        self._times.append((arrival_s, pts_s))
        offset_s = arrival_s - pts_s
        self._min_offset_s = min(offset_s, self._min_offset_s if self._min_offset_s is not None else offset_s)
        if offset_s - self._min_offset_s > _MAX_LAG_S:
            return "its frames arrive faster than this machine decodes them"
        first_arrival_s, first_pts_s = self._times[0]
        full = len(self._times) == _MAX_FRAMES
        if full and arrival_s - first_arrival_s < _WINDOW_S and abs(pts_s - first_pts_s) < _WINDOW_S:
            return f"it sends more than {MAX_FPS} frames a second"
        return None
