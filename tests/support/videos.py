"""Encoding of test videos: numbered grey frames, and a moving portrait."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from skimage.data import astronaut

# The luma of a frame is 16 + 2 x index, within the limited range; flat frames at a fine quantiser are decoded
# exactly as they were encoded.
LUMA_START, LUMA_STEP, INDICES = 16, 2, 100


def write_video(
    path: Path,
    *,
    frames: int = 50,
    fps: int = 25,
    width: int = 320,
    height: int = 240,
    gop: int = 10,
    b_frames: int = 0,
    codec: Literal["libx264", "mpeg4", "mjpeg"] = "libx264",
    audio: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode flat grey frames whose brightness is their index modulo 100; the suffix sets the container."""
    coder_options = {"preset": "ultrafast", "qp": "8", "bf": str(b_frames)} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options={**coder_options, **(options or {})})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = gop
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index in range(frames):
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = LUMA_START + LUMA_STEP * (index % INDICES)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000 * frames // fps), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def frame_index(image: av.VideoFrame) -> int:
    """Read the index of a frame of `write_video`, modulo 100, from its middle."""
    luma = image.to_ndarray(format="gray8" if image.format.name == "gray" else "yuv420p")
    return round((int(luma[image.height // 2, image.width // 2]) - LUMA_START) / LUMA_STEP)


def write_face_video(path: Path, *, seconds: float = 4.0, fps: int = 25) -> Path:
    """Encode a public-domain portrait that moves over a grey background, 640 x 360."""
    portrait = np.asarray(astronaut(), np.uint8)[:280, 80:360]  # type: ignore[no-untyped-call]
    height, width, _ = portrait.shape
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        video.codec_context.gop_size = fps
        for index in range(round(seconds * fps)):
            image = np.full((360, 640, 3), 90, np.uint8)
            left = 100 + round(40 * np.sin(2 * np.pi * index / (4 * fps)))
            image[40 : 40 + height, left : left + width] = portrait
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path
