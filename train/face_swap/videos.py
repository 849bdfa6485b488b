"""Reading and writing of whole videos, so that forged ones and originals pass through the same encoder."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, dropwhile, islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from streams.faces.colour import source_colorspace
from train.data.videos import constant_rate_frames, whole_rate
from train.face_swap.alignment import Image

MAX_RATE = 30
_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def video_rate(path: Path) -> int:
    """Return the frames per second at which a video is read and written, at most `MAX_RATE`.

    Raises:
        av.FFmpegError: The file cannot be read.
        IndexError: The file has no video.
    """
    with av.open(f"file:{path}", metadata_errors="replace") as source:
        return whole_rate(source.streams.video[0], MAX_RATE)


def read_frames(path: Path, rate: int, *, seconds: float, max_side: int) -> Iterator[tuple[int, Image]]:
    """Yield the number and the pixels of each frame, RGB uint8 `(H, W, 3)`, with even sides.

    Args:
        path: The video.
        rate: Frames per second.
        seconds: Duration to read from the start.
        max_side: Longer frames are scaled down to this.

    Raises:
        av.FFmpegError: The file cannot be read.
        IndexError: The file has no video.
    """
    with av.open(f"file:{path}", metadata_errors="replace") as source:
        video = source.streams.video[0]
        video.codec_context.thread_count = 1
        size: tuple[int, int] | None = None
        for number, image in constant_rate_frames(source, video, rate):
            if number >= seconds * rate:
                return
            rgb = np.asarray(
                image.reformat(
                    format="rgb24",
                    src_colorspace=source_colorspace(image),
                    interpolation=_QUALITY,
                    threads=1,
                ).to_ndarray(),
                np.uint8,
            )
            # A later frame of another size is brought to that of the first, as the encoder needs.
            size = size or _even_size(image.width, image.height, max_side)
            if size != (image.width, image.height):
                rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
            yield number, rgb


def read_part(
    path: Path, rate: int, *, start_s: float, seconds: float, max_side: int
) -> Iterator[tuple[int, Image]]:
    """Yield the frames of a part of a video as `read_frames` does, numbered from 0.

    Args:
        path: The video.
        rate: Frames per second.
        start_s: Seconds left out at the start; none if less than half of the part is left after it.
        seconds: Duration of the part.
        max_side: Longer frames are scaled down to this.

    Raises:
        av.FFmpegError: The file cannot be read.
        IndexError: The file has no video.
    """

    def frames(end_s: float) -> Iterator[tuple[int, Image]]:
        return read_frames(path, rate, seconds=end_s, max_side=max_side)

    first, half = round(start_s * rate), round(seconds * rate / 2)
    part = frames(seconds)
    if first:
        # Counted in frames, so that the part has as many of them as one from the start.
        late: Iterator[tuple[int, Image]] = dropwhile(
            lambda frame: frame[0] < first, frames(start_s + seconds + 1)
        )
        late = takewhile(lambda frame: frame[0] < first + seconds * rate, late)
        # Half of the part is kept in memory, because the duration in the file's header may be wrong.
        head = list(islice(late, half))
        if len(head) == half:
            part = chain(head, late)
    start: int | None = None
    for number, rgb in part:
        start = number if start is None else start
        yield number - start, rgb


class VideoWriter:
    """H.264 video of RGB frames; use it in `with`.

    Args:
        path: The file to write.
        rate: Frames per second.
        crf: Quality by x264's scale.
    """

    def __init__(self, path: Path, rate: int, crf: int) -> None:
        self._output = av.open(str(path), "w")
        self._rate, self._crf = rate, crf
        self._encoder: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder is not None and kind is None:
            self._output.mux(self._encoder.encode())
        self._output.close()

    def write(self, number: int, rgb: Image) -> None:
        """Encode a frame.

        Args:
            number: Its time in frames.
            rgb: Its pixels; the sides are even and those of the first frame.
        """
        if self._encoder is None:
            # With AVX-512, x264's macroblock tree reads memory that it never wrote, and the same frames would
            # give other files each time. Without it the quality is the same, in slightly larger files.
            options = {"crf": str(self._crf), "preset": "fast", "mbtree": "0"}
            self._encoder = self._output.add_stream("libx264", rate=self._rate, options=options)
            self._encoder.height, self._encoder.width = rgb.shape[:2]
            self._encoder.pix_fmt = "yuv420p"
            self._encoder.codec_context.thread_count = 1
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, interpolation=_QUALITY, threads=1
        )
        frame.pts, frame.time_base = number, Fraction(1, self._rate)
        self._output.mux(self._encoder.encode(frame))


def _even_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
