"""Screen as a source, with a check that it still exists."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

import av
import numpy as np

from streams.errors import SourceUnavailable
from streams.input.capture.ffmpeg import FFmpegCapture
from streams.input.capture.interface import DecodedFrame
from streams.input.devices.screen import X_SOCKETS
from streams.input.source import device_url

__all__ = ["ScreenCapture"]

_CHECK_S, _CHECK_TIMEOUT_S = 0.5, 2.0
_REMEMBERED = 64  # frames; more than FFmpeg's pool of buffers shared with an X server
_STRIDE = 4093  # a prime, so that the compared bytes are spread over the whole frame
_LOCAL_DISPLAY = re.compile(r"(?:unix)?:(?P<number>\d+)")


class ScreenCapture(FFmpegCapture):
    """Screen that is read through FFmpeg; see `FFmpegCapture`.

    After an X server has ended, FFmpeg returns the last frames again and again, in turn, and reports no
    error. When a frame equals a recent one, the server's socket is therefore compared with the one at the
    start, as another server may have taken the number, and the screen is opened a second time.
    """

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode every frame until the screen goes away or the capture is stopped.

        Yields:
            Frames in presentation order.

        Raises:
            SourceError: The screen has gone away, or reading failed.
        """
        recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        server = self._server()
        checked_s = self._clock() - _CHECK_S
        for frame in super().frames():
            sample = np.frombuffer(memoryview(frame.image.planes[0]), np.uint8)[::_STRIDE].tobytes()
            if sample in recent and self._clock() - checked_s >= _CHECK_S:
                self._check(server)
                checked_s = self._clock()
            recent.append(sample)
            yield frame

    def _server(self) -> tuple[int, int] | None:
        """Return what tells the X server from another one with its number; None if nothing does."""
        local = _LOCAL_DISPLAY.match(device_url(self._source))
        if self._source.format != "x11grab" or local is None:
            return None
        try:
            found = (X_SOCKETS / f"X{local['number']}").stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def _check(self, server: tuple[int, int] | None) -> None:
        if self._source.format != "x11grab":
            return
        gone = SourceUnavailable(self._source.spec, "the screen has gone away", "start its session again")
        if self._server() != server:
            raise gone
        options = {"video_size": "2x2", "framerate": "1000", "fpsprobesize": "0"}
        try:
            # With a time limit: FFmpeg opens a server that ends meanwhile for ever.
            av.open(
                device_url(self._source), format="x11grab", options=options, timeout=_CHECK_TIMEOUT_S
            ).close()
            return
        except (av.FFmpegError, OSError):
            pass
        raise gone
