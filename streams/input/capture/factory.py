"""Opening of a source of any kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from streams.input.capture.delivery import PacketHistory
from streams.input.capture.demo import DemoCapture
from streams.input.capture.ffmpeg import FFmpegCapture
from streams.input.capture.interface import Capture, Timeouts
from streams.input.clips.packet_ring import PacketRing
from streams.input.devices.screen_capture import ScreenCapture
from streams.input.pushed.capture import PushedCapture
from streams.input.source import Source

__all__ = ["open_capture"]


def open_capture(
    source: Source,
    *,
    timeouts: Timeouts,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
    history: PacketHistory | None = None,
    packets: PacketRing | None = None,
) -> Capture:
    """Open a source.

    Args:
        source: Source to open.
        timeouts: Longest silence while opening and reading.
        stop: Ends `Capture.frames` once it is set.
        clock: Monotonic seconds.
        history: Packets of earlier connections to the same source, which are not decoded again.
        packets: Receives the packets of the video, if the source has any; None to keep none.

    Returns:
        The open capture; the caller closes it.

    Raises:
        SourceError: The source cannot be opened.
    """
    if source.kind == "demo":
        return DemoCapture(stop=stop, clock=clock)
    if source.inlet is not None:
        return PushedCapture(source, source.inlet, stop=stop, clock=clock)
    history = history or PacketHistory()
    if source.kind == "screen":
        # Its packets are raw frames, too large to keep.
        return ScreenCapture(source, timeouts=timeouts, stop=stop, clock=clock, history=history)
    return FFmpegCapture(source, timeouts=timeouts, stop=stop, clock=clock, history=history, packets=packets)
