"""Source to which a sender pushes decoded frames, such as a browser by WebRTC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import av

from streams.errors import EndOfStream, SourceWaiting
from streams.input.capture.clock import CaptureClock
from streams.input.capture.delivery import Delivery
from streams.input.capture.interface import DecodedFrame
from streams.input.capture.media_time import ClockCheck
from streams.input.pushed.inlet import FrameInlet
from streams.input.source import Source

__all__ = ["PushedCapture"]

_WAIT_S = 2.0
_POLL_S = 0.2
_ARRIVAL_TIME_BASE = Fraction(1, 90000)


class PushedCapture:
    """One sender of a source.

    Args:
        source: Source with an inlet.
        inlet: Its inlet.
        stop: Ends `frames` once it is set.
        clock: Monotonic seconds.

    Raises:
        SourceWaiting: There is no sender.
    """

    def __init__(
        self, source: Source, inlet: FrameInlet, *, stop: threading.Event, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._inlet = inlet
        self._stop = stop
        self._capture_clock = CaptureClock()
        self._clock_check = ClockCheck()
        self._dropped_before = inlet.dropped
        self.fps: float | None = None
        self.delivery = Delivery(real_time=True, finite=False)
        self.corrupt = 0
        self.skipped = 0
        self.wrong_clock: str | None = None
        self.not_accelerated: str | None = "video over WebRTC is decoded by the CPU"
        deadline_s = clock() + _WAIT_S
        self._sender: int | None = None
        while self._sender is None and not stop.is_set():
            if clock() >= deadline_s:
                page = "open the page /camera of the dashboard"
                advice = page if inlet.key == "browser" else "send by WHIP to /whip/KEY of this server"
                raise SourceWaiting(source.spec, "nobody sends to it", advice)
            self._sender = inlet.wait(_POLL_S)

    def close(self) -> None:
        """Do nothing; the server owns the connection."""

    def frames(self) -> Iterator[DecodedFrame]:
        """Take every frame until the sender leaves or the capture is stopped.

        A sender may be silent: a browser sends nothing of a window that does not change.

        Yields:
            Frames in presentation order.

        Raises:
            SourceWaiting: The sender has left.
        """
        while self._sender is not None and not self._stop.is_set():
            try:
                pushed = self._inlet.take(self._sender, _POLL_S)
            except EndOfStream:
                pass
            else:
                if pushed is not None and pushed.image.pts is not None:
                    image = pushed.image
                    self.skipped = self._inlet.dropped - self._dropped_before
                    time_base = image.time_base or _ARRIVAL_TIME_BASE
                    yield self._timed(image, pushed.arrival_s, image.pts or 0, time_base)
                continue
            # Outside the except block, so that the end of the queue is not chained.
            raise SourceWaiting(self._source.spec, "the sender has left", "start it again")

    def _timed(self, image: av.VideoFrame, arrival_s: float, pts: int, time_base: Fraction) -> DecodedFrame:
        if self.wrong_clock is None:
            self.wrong_clock = self._clock_check.observe(arrival_s, float(pts * time_base))
            if self.wrong_clock is not None:
                self._capture_clock = CaptureClock()
        if self.wrong_clock is not None:
            pts, time_base = round(arrival_s / _ARRIVAL_TIME_BASE), _ARRIVAL_TIME_BASE
        pts_s = float(pts * time_base)
        self._capture_clock.observe(arrival_s, pts_s)
        captured_s = self._capture_clock.present(pts_s)
        return DecodedFrame(image=image, pts=pts, time_base=time_base, captured_s=captured_s, decode_ms=0.0)
