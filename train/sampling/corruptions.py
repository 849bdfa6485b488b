"""Damages face clips the way that cameras, calls and uploads do, to see what a detector owes to clean ones.

Pure. The damage is done to the crop, not to the picture that it was cut from: detection and tracking are not
part of what is measured.
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

Clip = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Holds one kind of damage with the strengths at which it is measured.

    Args:
        form: How to write a strength down, as `str.format` takes it.
        strengths: From mild to strong.
        apply: Takes a clip, a strength and a generator; gives the damaged clip.
    """

    form: str
    strengths: tuple[float, ...]
    apply: Callable[[Clip, float, np.random.Generator], Clip]


def corrupt(clip: Clip, name: str, severity: int, *, seed: int = 0) -> Clip:
    """Damage a clip.

    Args:
        clip: (T, H, W, 3) RGB uint8.
        name: One of `CORRUPTIONS`.
        severity: From 1 (mild) to the number of strengths.
        seed: Of the noise.

    Returns:
        (T, H, W, 3) RGB uint8, a new array.

    Raises:
        ValueError: The name, the severity or the clip's shape or type is not known.
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
    def again(frame: Clip) -> Clip:
        # OpenCV takes its input for BGR; the same order in and out, but luma and chroma must weigh the right
        # channels.
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None, "a JPEG just written can be read"
        return _uint8(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))

    return np.stack([again(frame) for frame in clip])


def _h264(clip: Clip, crf: float, _: np.random.Generator) -> Clip:
    # 4:2:0 needs even sides, so an odd one is extended by its edge and cut off again.
    count, height, width, _ = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        # One thread: frame threads change the rate control, and with it the figures, from machine to machine.
        stream.options = {"crf": str(int(crf)), "preset": "fast", "threads": "1"}
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as coded:
        frames = [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
    if len(frames) != count:
        raise RuntimeError(f"H.264 gave {len(frames)} frames back for {count}")
    return np.stack([_uint8(frame) for frame in frames])[:, :height, :width]


def _blur(clip: Clip, sigma: float, _: np.random.Generator) -> Clip:
    # The strength is told at 224 px, the size of prepared crops; other sizes get the same blur of the face.
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


def _uint8(picture: object) -> Clip:
    return np.asarray(picture, dtype=np.uint8)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "jpeg": Corruption(form="quality {:g}", strengths=(70, 40, 15), apply=_jpeg),
        "h264": Corruption(form="CRF {:g}", strengths=(28, 35, 42), apply=_h264),
        "blur": Corruption(form="sigma {:g} px of 224", strengths=(1, 2, 4), apply=_blur),
        "noise": Corruption(form="deviation {:g} of 255", strengths=(5, 12, 25), apply=_noise),
        "resize": Corruption(form="to {:g} and back", strengths=(0.5, 0.25, 0.125), apply=_resize),
        "gamma": Corruption(form="exponent {:g}, darker", strengths=(1.5, 2.2, 3.0), apply=_gamma),
    }
)
