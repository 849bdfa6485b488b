"""Transcoding of whole videos for a benchmark: codecs at the bitrates of cameras, sizes, rates, light.

path = transcode(Path("clip.mp4"), TRANSCODINGS["h264-crf35"], Path("cache"))
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.files import atomic_path
from train.data.videos import constant_rate_frames, whole_rate
from train.errors import TrainError

Planes = NDArray[np.float32]
"""One plane of a frame, 0..255."""
FrameChange = Callable[[list[Planes], np.random.Generator], list[Planes]]
"""Function from the planes Y, U, V of a frame and a random generator to the changed planes."""

MAX_RATE = 60
# Limited range, as in most videos.
BLACK, GREY = 16.0, 128.0
EXPOSURE, NIGHT_EXPOSURE = 0.35, 0.1
# Standard deviation of the blur out of focus, as a share of the height of the frame.
DEFOCUS = 0.012
LUMA_NOISE, CHROMA_NOISE = 6.0, 3.0


class TranscodingUnknown(TrainError):
    """A transcoding that does not exist.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"--transcode {self.name}: unknown; choose all or some of {', '.join(TRANSCODINGS)}"


class TranscodingFailed(TrainError):
    """A video that cannot be transcoded.

    Args:
        path: The video.
        name: Name of the transcoding.
        reason: Cause, without a full stop.
    """

    def __init__(self, path: Path, name: str, reason: str) -> None:
        super().__init__(path, name, reason)
        self.path = path
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: cannot be transcoded ({self.name}): {self.reason}; remove it from the manifest"


def _dark(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return _underexposed(planes, EXPOSURE, random)


def _night(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return _underexposed(planes, NIGHT_EXPOSURE, random)


def _underexposed(planes: list[Planes], exposure: float, random: np.random.Generator) -> list[Planes]:
    """Less light, and the noise of a sensor that amplifies it."""
    luma, *chroma = planes
    changed = [BLACK + exposure * (luma - BLACK) + _noise(luma, LUMA_NOISE, random)]
    return changed + [GREY + exposure * (c - GREY) + _noise(c, CHROMA_NOISE, random) for c in chroma]


def _defocused(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return [np.asarray(cv2.GaussianBlur(plane, (0, 0), DEFOCUS * len(plane)), np.float32) for plane in planes]


def _grey(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return [planes[0], *(np.full_like(chroma, GREY) for chroma in planes[1:])]


def _upside_down(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return [plane[::-1, ::-1] for plane in planes]


def _noisy(planes: list[Planes], random: np.random.Generator) -> list[Planes]:
    return [plane + _noise(plane, LUMA_NOISE / 2, random) for plane in planes]


def _noise(plane: Planes, sigma: float, random: np.random.Generator) -> Planes:
    return sigma * random.standard_normal(plane.shape, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Transcoding:
    """Transcoding of a video.

    Args:
        name: Name in the results.
        codec: Name of the encoder.
        options: Options of the encoder.
        pixel_format: Pixel format of the encoder.
        bits_per_pixel: Bitrate in bits per pixel and frame; 0 if the options state the quality.
        scale: Size divided by that of the original.
        max_rate: Largest number of pictures per second.
        frame_rate: Frames per second, to which pictures are repeated; 0 for as many as pictures.
        change: Change of each frame before it is encoded; None for none.
        still: Whether the first frame is shown for the whole time.
    """

    name: str
    codec: str = "libx264"
    options: Mapping[str, str] = field(
        default_factory=lambda: {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
    )
    pixel_format: str = "yuv420p"
    bits_per_pixel: float = 0.0
    scale: float = 1.0
    max_rate: int = MAX_RATE
    frame_rate: int = 0
    change: FrameChange | None = None
    still: bool = False

    @property
    def key(self) -> str:
        """Identity of the settings, for the names of stored files."""
        change = "" if self.change is None else self.change.__name__
        values = (self.codec, sorted(self.options.items()), self.pixel_format, self.bits_per_pixel)
        constants = (EXPOSURE, NIGHT_EXPOSURE, DEFOCUS, LUMA_NOISE, CHROMA_NOISE)
        settings = (
            f"{values} {self.scale} {self.max_rate} {change} {self.still} {constants}{self.frame_rate or ''}"
        )
        return hashlib.sha256(settings.encode()).hexdigest()[:8]


def _x264(crf: int) -> dict[str, str]:
    return {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf)}


TRANSCODINGS: Mapping[str, Transcoding] = MappingProxyType(
    {
        transcoding.name: transcoding
        for transcoding in (
            Transcoding(name="h264-crf28", options=_x264(28)),
            Transcoding(name="h264-crf35", options=_x264(35)),
            Transcoding(name="h264-crf42", options=_x264(42)),
            Transcoding(
                name="hevc-crf32",
                codec="libx265",
                options={
                    "preset": "ultrafast",
                    "tune": "zerolatency",
                    "crf": "32",
                    "x265-params": "log-level=none",
                },
            ),
            Transcoding(
                name="vp9-webrtc",
                codec="libvpx-vp9",
                options={"deadline": "realtime", "cpu-used": "8"},
                bits_per_pixel=0.06,
            ),
            Transcoding(
                name="mjpeg", codec="mjpeg", options={"qmin": "8", "qmax": "8"}, pixel_format="yuvj420p"
            ),
            Transcoding(name="half", scale=0.5),
            Transcoding(name="quarter", scale=0.25),
            Transcoding(name="eighth", scale=0.125),
            Transcoding(name="defocus", change=_defocused),
            Transcoding(name="15fps", max_rate=15),
            Transcoding(name="10fps", max_rate=10),
            Transcoding(name="15in30", max_rate=15, frame_rate=30),
            Transcoding(name="24in30", max_rate=24, frame_rate=30),
            Transcoding(name="dark", change=_dark, options=_x264(28)),
            Transcoding(name="night", change=_night, options=_x264(28)),
            Transcoding(name="grey", change=_grey),
            Transcoding(name="upside-down", change=_upside_down),
            Transcoding(name="noisy-still", change=_noisy, still=True),
        )
    }
)
"""All transcodings by name. In the last three no face has colour, is upright, or moves: none should be
`fake`."""


def choose_transcodings(names: Collection[str]) -> list[Transcoding]:
    """Return transcodings by name; `all` stands for all.

    Args:
        names: The names.

    Raises:
        TranscodingUnknown: There is none of a name.
    """
    if "all" in names:
        return list(TRANSCODINGS.values())
    for name in names:
        if name not in TRANSCODINGS:
            raise TranscodingUnknown(name)
    return [TRANSCODINGS[name] for name in dict.fromkeys(names)]


def transcode(path: Path, transcoding: Transcoding, folder: Path, *, key: str) -> Path:
    """Transcode a video, unless that was done before.

    Args:
        path: The video.
        transcoding: The transcoding.
        folder: Existing folder for the result.
        key: Identity of the video.

    Returns:
        The transcoded video; a Matroska file.

    Raises:
        TranscodingFailed: The video cannot be read or encoded.
    """
    target = folder / f"{path.stem}-{key[:12]}-{transcoding.name}-{transcoding.key}.mkv"
    if target.exists():
        return target
    try:
        with atomic_path(target) as draft:
            _transcode(path, transcoding, draft)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise TranscodingFailed(path, transcoding.name, str(error)) from error
    return target


def _transcode(path: Path, transcoding: Transcoding, draft: Path) -> None:
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    with av.open(f"file:{path}", metadata_errors="replace") as source, av.open(str(draft), "w") as output:
        video = source.streams.video[0]
        picture_rate = whole_rate(video, transcoding.max_rate)
        rate = max(picture_rate, transcoding.frame_rate)
        encoder: Any = None
        number = 0
        for picture, image in constant_rate_frames(source, video, picture_rate):
            if encoder is None:
                encoder = _add_encoder(output, image, transcoding, rate)
                still = image
            while number * picture_rate < (picture + 1) * rate:
                frame = _changed(still if transcoding.still else image, encoder, transcoding, random)
                frame.pts, frame.time_base = number, Fraction(1, rate)
                output.mux(encoder.encode(frame))
                number += 1
        if encoder is None:
            raise ValueError("it has no frame")
        output.mux(encoder.encode())


def _add_encoder(
    output: av.container.OutputContainer, image: av.VideoFrame, transcoding: Transcoding, rate: int
) -> Any:
    encoder: Any = output.add_stream(transcoding.codec, rate=rate, options=dict(transcoding.options))
    # Even sizes, which 4:2:0 needs.
    encoder.width = max(2, 2 * round(image.width * transcoding.scale / 2))
    encoder.height = max(2, 2 * round(image.height * transcoding.scale / 2))
    encoder.pix_fmt = transcoding.pixel_format
    encoder.codec_context.thread_count = 1
    if transcoding.bits_per_pixel:
        encoder.bit_rate = round(transcoding.bits_per_pixel * encoder.width * encoder.height * rate)
    return encoder


def _changed(
    image: av.VideoFrame, encoder: Any, transcoding: Transcoding, random: np.random.Generator
) -> av.VideoFrame:
    """Return a frame in the encoder's size and format, changed."""
    scaled = image.reformat(width=encoder.width, height=encoder.height, format=encoder.pix_fmt, threads=1)
    if transcoding.change is None:
        # The encoder decides which frames are keyframes, not the original.
        scaled.pict_type = 0
        return scaled
    height, width = encoder.height, encoder.width
    packed = scaled.to_ndarray().astype(np.float32).ravel()
    luma, chroma = height * width, height * width // 4
    planes = [
        packed[:luma].reshape(height, width),
        packed[luma : luma + chroma].reshape(height // 2, width // 2),
        packed[luma + chroma :].reshape(height // 2, width // 2),
    ]
    changed = np.concatenate([plane.ravel() for plane in transcoding.change(planes, random)])
    array = np.clip(np.rint(changed), 0, 255).astype(np.uint8).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(array, format=encoder.pix_fmt)
