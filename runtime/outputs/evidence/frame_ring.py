"""Newest scored frames of the streams that have no compressed video, and clips made of them.

Screens, some webcams, browsers and the demo deliver raw frames, too many bytes to keep. Their scored frames,
eight a second, are kept as JPEG.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from runtime.outputs.background_writer import BackgroundWriter
from runtime.serving.previews.jpeg import JpegEncoder
from streams.input.clips.packet_ring import RingLimits
from streams.input.clips.remux import Clip
from streams.input.frame import Frame

MAX_WIDTH = 1280
JPEG_QUALITY = 85
# Frames that may wait to be encoded; then the oldest are left out of clips.
CAPACITY = 16
_TIME_BASE = Fraction(1, 1000)
_OPTIONS = {"preset": "veryfast", "crf": "20"}


class FrameRings:
    """Newest frames of several streams as JPEG, encoded on a thread of its own.

    Args:
        limits: Limits of time and size for each stream.
    """

    def __init__(self, limits: RingLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._rings: dict[str, deque[tuple[float, bytes]]] = {}
        self._encoder = JpegEncoder(JPEG_QUALITY)
        self._writer: BackgroundWriter[tuple[str, Frame]] = BackgroundWriter(
            "evidence frames", self._encode, capacity=CAPACITY
        )

    def add(self, stream: str, frame: Frame) -> None:
        """Queue the next frame of a stream; returns at once."""
        self._writer.put((stream, frame))

    def cut(self, stream: str, start_s: float, end_s: float) -> list[tuple[float, bytes]]:
        """Return the frames of a period, oldest first: media time in seconds and JPEG.

        Args:
            stream: Name of the stream.
            start_s: First media time in seconds.
            end_s: Last media time in seconds.
        """
        with self._lock:
            return [entry for entry in self._rings.get(stream, ()) if start_s <= entry[0] <= end_s]

    def forget(self, stream: str) -> None:
        """Drop the frames of a stream."""
        with self._lock:
            self._rings.pop(stream, None)

    def close(self, *, timeout_s: float | None) -> None:
        """Encode the waiting frames and stop.

        Args:
            timeout_s: Longest time to wait; None for no limit.
        """
        self._writer.close(timeout_s=timeout_s)

    def _encode(self, item: tuple[str, Frame]) -> None:
        stream, frame = item
        jpeg, _, _ = self._encoder.encode(frame.image, MAX_WIDTH)
        with self._lock:
            ring = self._rings.setdefault(stream, deque())
            if ring and frame.pts_s <= ring[-1][0]:
                ring.clear()  # media time has jumped back
            ring.append((frame.pts_s, jpeg))
            size = sum(len(data) for _, data in ring)
            while frame.pts_s - ring[0][0] > self._limits.seconds or size > self._limits.max_bytes:
                size -= len(ring.popleft()[1])
                if not ring:
                    break


def encode_clip(path: Path, frames: Sequence[tuple[float, bytes]]) -> Clip:
    """Encode frames as H.264 in MP4, with their own times.

    Args:
        path: New file.
        frames: Media time in seconds and JPEG of each frame, at least one, times increasing.

    Returns:
        Description of the clip.

    Raises:
        OSError: The file cannot be written.
        ValueError: The frames cannot be encoded.
    """
    start_s, length_s = frames[0][0], frames[-1][0] - frames[0][0]
    try:
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
            stream = output.add_stream("libx264", rate=8, options=_OPTIONS)
            stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TIME_BASE
            for number, (time_s, jpeg) in enumerate(frames):
                bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                if bgr is None:
                    raise ValueError("a kept frame cannot be read")
                if not number:
                    # The encoder takes even sizes only, and one size per file.
                    stream.height, stream.width = (max(2, side // 2 * 2) for side in bgr.shape[:2])
                image = av.VideoFrame.from_ndarray(np.asarray(bgr, np.uint8), format="bgr24")
                image = image.reformat(stream.width, stream.height, "yuv420p", threads=1)
                image.pts, image.time_base = round((time_s - start_s) / _TIME_BASE), _TIME_BASE
                output.mux(stream.encode(image))
            output.mux(stream.encode(None))
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"the frames cannot be encoded: {error.strerror}") from error
    return Clip(codec="h264", start_s=start_s, seconds=length_s, frames=len(frames))
