"""Writing of annotated frames into an MP4 file, for `scan` and `monitor`.

The file contains the frames that were scored, with their own times. It is fragmented, so that what has been
written can be played even if the program is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.reformatter import Interpolation

from runtime.errors import VideoNotWritten
from runtime.messages import Thresholds, VerdictMessage
from runtime.outputs.annotated_video.overlay import Overlay
from runtime.outputs.background_writer import BackgroundWriter
from runtime.pipeline.stream_thread import ScoredFrame
from runtime.serving.client_queue import EncodedMessage
from streams.faces.colour import source_colorspace
from streams.input.frame import Frame

logger = logging.getLogger(__name__)

MAX_SIDE = 1280
# A longer interval, such as an outage of the source, is shortened to this.
MAX_INTERVAL_S = 1.0
# Frames that may wait while the encoder is busy; then the oldest are left out.
CAPACITY = 16
_TIME_BASE = Fraction(1, 1000)
# Without B-frames, whose delay a fragmented file cannot express.
_OPTIONS = {"preset": "veryfast", "crf": "23", "g": "16", "bf": "0"}


def check_video_name(path: Path) -> None:
    """Check that the name of an annotated video has the suffix of its format.

    Raises:
        VideoNotWritten: Its suffix is not `.mp4`.
    """
    if path.suffix.lower() != ".mp4":
        raise VideoNotWritten(path, "its name does not end in .mp4")


class AnnotatedVideo:
    """Video file of annotated frames; for one thread.

    Args:
        path: The file, whose suffix is `.mp4`; the first frame replaces what was there.
        thresholds: Thresholds on `p_fake`.
        sample_hz: Nominal rate of the frames.

    Raises:
        VideoNotWritten: The file has another suffix or cannot be created.
    """

    def __init__(self, path: Path, thresholds: Thresholds, *, sample_hz: float) -> None:
        check_video_name(path)
        self.path = path
        self._overlay = Overlay(thresholds)
        self._sample_hz = sample_hz
        self._stream: av.VideoStream | None = None
        self._last_s: float | None = None
        self._time_s = 0.0
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        try:
            # FFmpeg opens the file, and empties it, with the first frame only.
            self._existed = path.exists()
            path.open("ab").close()
            self._container = av.open(str(path), "w", format="mp4", options=options)
        except (OSError, av.FFmpegError) as error:
            raise VideoNotWritten(path, _reason(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_thresholds(self, thresholds: Thresholds) -> None:
        """Draw other thresholds from now on."""
        self._overlay.thresholds = thresholds

    def add(self, frame: Frame, verdicts: Sequence[VerdictMessage]) -> None:
        """Append a frame.

        Args:
            frame: The frame; scaled down to `MAX_SIDE`, and to the size of the first one.
            verdicts: Verdicts on its faces.

        Raises:
            VideoNotWritten: The file cannot be written.
        """
        self._time_s += self._interval_s(frame.pts_s)
        try:
            stream = self._stream or self._begin(frame)
            image = frame.image.reformat(
                stream.width,
                stream.height,
                "rgb24",
                src_colorspace=source_colorspace(frame.image),
                interpolation=Interpolation.AREA,
                threads=1,
            )
            rgb = np.ascontiguousarray(image.to_ndarray(), np.uint8)
            self._overlay.draw(rgb, self._time_s, verdicts)
            drawn = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            drawn.pts, drawn.time_base = round(self._time_s / _TIME_BASE), _TIME_BASE
            self._container.mux(stream.encode(drawn))
        except (OSError, av.FFmpegError) as error:
            raise VideoNotWritten(self.path, _reason(error)) from error

    def close(self) -> None:
        """Write the frames that the encoder holds, and close the file.

        Raises:
            VideoNotWritten: The file cannot be written.
        """
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._stream is None and not self._existed:
                self.path.unlink(missing_ok=True)  # a video without a frame cannot be played
        except (OSError, av.FFmpegError) as error:
            raise VideoNotWritten(self.path, _reason(error)) from error

    def _begin(self, frame: Frame) -> av.VideoStream:
        scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
        rate = Fraction(self._sample_hz).limit_denominator(1000)
        stream = self._container.add_stream("libx264", rate=rate, options=_OPTIONS)
        # The encoder takes even sizes only.
        stream.width = max(2, round(frame.width * scale / 2) * 2)
        stream.height = max(2, round(frame.height * scale / 2) * 2)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        self._stream = stream
        return stream

    def _interval_s(self, pts_s: float) -> float:
        last_s, self._last_s = self._last_s, pts_s
        if last_s is None:
            return 0.0
        interval_s = pts_s - last_s
        return min(interval_s, MAX_INTERVAL_S) if interval_s > 0 else 1 / self._sample_hz


class AnnotatedStream:
    """Annotated video of a live stream, written on a thread of its own; an output.

    When the encoder is too slow, frames are left out. A file that cannot be written is reported once.

    Args:
        video: The file.
    """

    def __init__(self, video: AnnotatedVideo) -> None:
        self.name = "annotate"
        self._video = video
        self._failed = False
        self._writer: BackgroundWriter[ScoredFrame] = BackgroundWriter(
            "annotated video", self._add, capacity=CAPACITY
        )

    @property
    def lost(self) -> int:
        """Number of frames that were left out."""
        return self._writer.lost

    def __call__(self, encoded: EncodedMessage) -> None:
        """Do nothing: the frames come with their verdicts."""

    def on_frame(self, scored: ScoredFrame) -> None:
        """Queue a frame; returns at once."""
        self._writer.put(scored)

    def finish(self) -> bool:
        """Accept no more frames and return at once, with whether all have been written or lost."""
        return self._writer.finish()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Write the waiting frames and close the file.

        Args:
            timeout_s: Longest time to wait for the encoder; None for no limit.
        """
        # The encoder must not be used on two threads.
        if self._writer.close(timeout_s=timeout_s) and not self._failed:
            try:
                self._video.close()
            except VideoNotWritten as error:
                logger.error("%s", error)

    def _add(self, scored: ScoredFrame) -> None:
        if self._failed:
            raise OSError("the annotated video has ended")
        try:
            if (own := scored.calibration) is not None:
                self._video.set_thresholds(Thresholds(real=own.threshold_real, fake=own.threshold_fake))
            self._video.add(scored.frame, scored.verdicts)
        except VideoNotWritten as error:
            self._failed = True
            logger.error("%s; the annotated video ends here", error)
            raise


def _reason(error: OSError | av.FFmpegError) -> str:
    return (error.strerror or str(error)).lower()
