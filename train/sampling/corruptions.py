"""Corruptions of face clips, as by cameras, calls and uploads, to measure the robustness of a detector.

    corrupted = corrupt(frames, "jpeg", severity=2)

Corruptions apply to the crop, not to the frame it was cut from: face detection and tracking are not measured.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.crops import jpeg_roundtrip

Clip = NDArray[np.uint8]

X264_OPTIONS = {"preset": "fast", "threads": "1", "rc-lookahead": "0", "x264-params": "cpu-independent=1"}
"""Options with which x264 returns the same bytes every time and on every CPU. With frame threads they depend
on the number of cores; with the lookahead they differed from run to run."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Kind of corruption, with the strengths at which it is measured.

    Attributes:
        template: Format string for a strength.
        strengths: Strengths from mild to severe.
        apply: Function from a clip, a strength and a random generator to the corrupted clip.
    """

    template: str
    strengths: tuple[float, ...]
    apply: Callable[[Clip, float, np.random.Generator], Clip]


def corrupt(clip: Clip, name: str, severity: int, *, seed: int = 0) -> Clip:
    """Return a corrupted copy of a clip.

    Args:
        clip: RGB uint8 `(T, H, W, 3)`.
        name: One of `CORRUPTIONS`.
        severity: From 1 (mild) to the number of strengths.
        seed: Seed of the noise.

    Returns:
        RGB uint8 `(T, H, W, 3)`, a new array.

    Raises:
        ValueError: The name or the severity is unknown, or the clip has another shape or type.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}")
    strengths = CORRUPTIONS[name].strengths
    if not 1 <= severity <= len(strengths):
        raise ValueError(f"severity of {name} must be within 1..{len(strengths)}, not {severity}")
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8 or 0 in clip.shape:
        raise ValueError(f"a clip is uint8 (T, H, W, 3), not {clip.dtype} {clip.shape}")
    return CORRUPTIONS[name].apply(clip, strengths[severity - 1], np.random.default_rng([seed, severity]))


def _jpeg(clip: Clip, quality: float, _: np.random.Generator) -> Clip:
    return np.stack([jpeg_roundtrip(frame, int(quality), halve_chroma=True) for frame in clip])


def _h264(clip: Clip, crf: float, _: np.random.Generator) -> Clip:
    # 4:2:0 needs even sides: replicate the edge of an odd one and cut it off afterwards.
    count, height, width, _ = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        stream.options = {"crf": str(int(crf)), **X264_OPTIONS}
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as coded:
        frames = [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
    if len(frames) != count:
        raise RuntimeError(f"H.264 returned {len(frames)} frames for {count}")
    return np.stack([_uint8(frame) for frame in frames])[:, :height, :width]


def _blur(clip: Clip, sigma: float, _: np.random.Generator) -> Clip:
    # The strength refers to 224 px, the size of prepared crops; other sizes get the same blur of the face.
    scaled = sigma * clip.shape[1] / 224
    return np.stack([_uint8(cv2.GaussianBlur(frame, (0, 0), scaled)) for frame in clip])


def _noise(clip: Clip, deviation: float, rng: np.random.Generator) -> Clip:
    noise = rng.standard_normal(clip.shape, dtype=np.float32) * np.float32(deviation)
    return np.clip(np.rint(clip + noise), 0, 255).astype(np.uint8)


def _resize(clip: Clip, factor: float, _: np.random.Generator) -> Clip:
    _, height, width, _ = clip.shape
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.stack(
        [
            _uint8(cv2.resize(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (width, height)))
            for frame in clip
        ]
    )


def _gamma(clip: Clip, exponent: float, _: np.random.Generator) -> Clip:
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return table[clip]


def _uint8(image: object) -> Clip:
    return np.asarray(image, dtype=np.uint8)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "jpeg": Corruption(template="quality {:g}", strengths=(70, 40, 15), apply=_jpeg),
        "h264": Corruption(template="CRF {:g}", strengths=(28, 35, 42), apply=_h264),
        "blur": Corruption(template="sigma {:g} px of 224", strengths=(1, 2, 4), apply=_blur),
        "noise": Corruption(template="deviation {:g} of 255", strengths=(5, 12, 25), apply=_noise),
        "resize": Corruption(template="to {:g} and back", strengths=(0.5, 0.25, 0.125), apply=_resize),
        "gamma": Corruption(template="exponent {:g}, darker", strengths=(1.5, 2.2, 3.0), apply=_gamma),
    }
)
