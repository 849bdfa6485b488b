"""Videos that the cameras of the soak send: the moving face of the demo, and variants of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streams.synthesis.demo import demo_frames

FPS = 25
SLOW_FPS = 3
SECONDS = 16  # the face is in the frame up to 18 s
STILL_S = 4
OPTIONS = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "23"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"},
}

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Files of the cameras. Each begins with a keyframe and has one per second.

    Args:
        normal: H.264, 640x360, 25 frames a second.
        large: The same at 1280x720.
        still: One frame with sensor noise, repeated.
        slow: The same with 3 frames a second.
        hevc: The same in H.265.
    """

    normal: Path
    large: Path
    still: Path
    slow: Path
    hevc: Path

    @property
    def h264(self) -> tuple[Path, ...]:
        """Return the files that a camera can change to while it runs."""
        return (self.normal, self.large, self.still, self.slow)


def write_clips(folder: Path) -> Clips:
    """Encode the files; takes about ten seconds.

    Args:
        folder: Existing folder.
    """
    return Clips(
        normal=_encode(folder / "normal.mp4", _face(640, 360)),
        large=_encode(folder / "large.mp4", _face(1280, 720)),
        still=_encode(folder / "still.mp4", _still()),
        slow=_encode(
            folder / "slow.mp4", itertools.islice(_face(640, 360), 0, None, FPS // SLOW_FPS), SLOW_FPS
        ),
        hevc=_encode(folder / "hevc.mp4", _face(640, 360), codec="libx265"),
    )


def _face(width: int, height: int) -> Iterator[Rgb]:
    frames = demo_frames(fps=FPS, width=width, height=height)
    return (rgb for _, rgb in itertools.islice(frames, SECONDS * FPS))


def _still() -> Iterator[Rgb]:
    rng = np.random.default_rng(1)
    frame = next(_face(640, 360)).astype(np.int16)
    for _ in range(STILL_S * FPS):
        yield np.clip(frame + rng.normal(0, 1.5, frame.shape).round().astype(np.int16), 0, 255).astype(
            np.uint8
        )


def _encode(path: Path, frames: Iterable[Rgb], fps: int = FPS, *, codec: str = "libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=OPTIONS[codec])
        assert isinstance(stream, av.VideoStream)
        for index, rgb in enumerate(frames):
            if index == 0:
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = fps
                stream.codec_context.max_b_frames = 0
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
