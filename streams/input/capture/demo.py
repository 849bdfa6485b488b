"""The built-in demo as a live source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import av

from streams.input.capture.delivery import Delivery
from streams.input.capture.interface import DecodedFrame

__all__ = ["DemoCapture"]

_FPS = 25


class DemoCapture:
    """The built-in demo, generated in real time like the frames of a camera.

    Args:
        stop: Ends `frames` once it is set.
        clock: Monotonic seconds.
    """

    def __init__(self, *, stop: threading.Event, clock: Callable[[], float]) -> None:
        self._stop = stop
        self._clock = clock
        self.fps: float | None = float(_FPS)
        self.delivery = Delivery(real_time=True, finite=False)
        self.corrupt = 0
        self.skipped = 0
        self.wrong_clock: str | None = None
        self.not_accelerated: str | None = None

    def close(self) -> None:
        """Do nothing; the demo has no connection."""

    def frames(self) -> Iterator[DecodedFrame]:
        """Generate frames until the capture is stopped.

        Yields:
            One frame every 1 / fps seconds of the clock.
        """
        from streams.synthesis.demo import demo_frames  # imported late: scikit-image is slow to load

        time_base = Fraction(1, _FPS)
        frames = demo_frames(fps=_FPS)
        start_s: float | None = None
        while True:
            started_s = self._clock()
            pts, rgb = next(frames)
            image = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            drawn_s = self._clock()
            due_s = float(pts * time_base)
            # On a machine too slow to draw every frame in time, the frame rate falls instead of the delay
            # growing.
            start_s = drawn_s - due_s if start_s is None else max(start_s, drawn_s - due_s)
            if self._stop.wait(max(0.0, start_s + due_s - drawn_s)):
                return
            image.pts, image.time_base = pts, time_base
            yield DecodedFrame(
                image=image,
                pts=pts,
                time_base=time_base,
                captured_s=start_s + due_s,
                decode_ms=(drawn_s - started_s) * 1000,
            )
