"""Varies crops as the runtime's crops vary: position, scale, mirror, light, colour, blur, noise, compression.

A variation is drawn once and applied alike to all frames of a clip, to a crop and its forgery, and (its
geometry) to the forgery's region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

SHADE_GRID = 5
"""Points a side at which light and shade are drawn: what is finer is not light, but the face."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """The drawn parameters of one variation.

    Attributes:
        size: Side of the result in pixels.
        turn: Affine map from source to result, (2, 3).
        light: Look-up table (1, 256, 3), or None.
        shade: Factors on the colours at points of a grid over the result, (5, 5, 3), or None.
        cast: Matrix (3, 3) from colours to colours, or None.
        blur: Deviation of the blur in pixels of the result; 0 for none.
        sharpen: Weight of what a blur takes away, added as cameras and broadcasters do; 0 for none.
        shrink: Scale that the result is taken down to and up again; 1 for none.
        noise: Deviation of the noise in grey levels; 0 for none.
        grain: Seed of the noise.
        quality: Of the JPEG it goes through, 1..100; 0 for none.
        halved: Whether that JPEG halves the colour's resolution, as video does.
    """

    size: int
    turn: NDArray[np.float32]
    light: Image | None
    shade: NDArray[np.float32] | None
    cast: NDArray[np.float32] | None
    blur: float
    sharpen: float
    shrink: float
    noise: float
    grain: int
    quality: int
    halved: bool

    def apply(self, frame: Image, index: int = 0) -> Image:
        """Vary a frame.

        Args:
            frame: uint8 RGB (H, W, 3).
            index: Its number in the clip; noise differs between frames.

        Returns:
            uint8 RGB (size, size, 3).
        """
        return self.tone(self.place(frame), index)

    def place(self, frame: Image, first: NDArray[np.float32] | None = None) -> Image:
        """Do what is geometry, in one resampling.

        Args:
            frame: uint8 RGB (H, W, 3).
            first: Affine map (2, 3) of the frame that comes before it; None for none.

        Returns:
            uint8 RGB (size, size, 3).
        """
        return np.asarray(_warp(frame, self._after(first), self.size, cv2.BORDER_REPLICATE), np.uint8)

    def tone(self, placed: Image, index: int = 0) -> Image:
        """Do the rest: light, colour, blur, noise and compression of a placed frame."""
        size = (self.size, self.size)
        image: NDArray[Any] = placed
        if self.light is not None:
            image = cv2.LUT(image, self.light)
        if self.shade is not None:
            image = cv2.multiply(
                image, cv2.resize(self.shade, size, interpolation=cv2.INTER_CUBIC), dtype=cv2.CV_8U
            )
        if self.cast is not None:
            image = cv2.transform(image, self.cast)
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.shrink < 1:
            small = cv2.resize(image, None, fx=self.shrink, fy=self.shrink, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
        if self.sharpen:
            soft = cv2.GaussianBlur(image, (0, 0), 1.2)
            image = cv2.addWeighted(image, 1 + self.sharpen, soft, -self.sharpen, 0)
        if self.noise:
            grain = np.random.default_rng((self.grain, index)).normal(0, self.noise, image.shape)
            image = np.clip(image + grain, 0, 255).astype(np.uint8)
        if self.quality:
            sampling = (
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if self.halved else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            )
            options = [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
            _, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
            # What was just coded can be decoded.
            image = cv2.cvtColor(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
        return np.asarray(image, np.uint8)

    def move(
        self, region: NDArray[np.float32], first: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Move a region as the frame moves: float32 (H, W) to (size, size), nothing outside."""
        return np.asarray(_warp(region, self._after(first), self.size, cv2.BORDER_CONSTANT), np.float32)

    def _after(self, first: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if first is None:
            return self.turn
        whole = np.vstack([first, [0, 0, 1]])
        return np.asarray(self.turn @ whole, np.float32)


def draw_variation(side: int, size: int, rng: np.random.Generator, *, zoom: float = 1.0) -> Variation:
    """Draw a variation.

    Args:
        side: Side of the frames that it is for, in pixels.
        size: Side of the result.
        rng: Where it is drawn from.
        zoom: Up to so many times enlarged, about a point such that the result stays within the frame.

    Returns:
        The variation.
    """
    enlarged = float(np.exp(rng.uniform(0, np.log(zoom)))) if zoom > 1 else 1.0
    scale = size / side * rng.uniform(0.97, 1.12) * enlarged
    slack = (enlarged - 1) / 2 * size
    shift = size / 2 - scale * side / 2 + rng.normal(0, 0.02 * size, 2) + rng.uniform(-slack, slack, 2)
    if rng.random() < 0.5:
        turn = [[-scale, 0, size - shift[0]], [0, scale, shift[1]]]
    else:
        turn = [[scale, 0, shift[0]], [0, scale, shift[1]]]
    light = None
    if rng.random() < 0.5:
        ramp = np.arange(256) / 255.0
        gain, gamma = rng.normal(1, 0.12), np.exp(rng.normal(0, 0.2))
        tint = rng.normal(0, 5, 3)
        if rng.random() < 0.2:  # too little light
            gain, tint = gain * np.exp(rng.uniform(-1.7, -0.4)), 0.4 * tint
        light = np.clip(255 * gain * ramp[:, None] ** gamma + tint, 0, 255).astype(np.uint8)[None]
    return Variation(
        size=size,
        turn=np.array(turn, np.float32),
        light=light,
        shade=_draw_shade(rng) if rng.random() < 0.3 else None,
        cast=_draw_cast(rng) if rng.random() < 0.5 else None,
        blur=rng.uniform(0.003, 0.011) * size if rng.random() < 0.2 else 0.0,
        sharpen=rng.uniform(0.3, 1.5) if rng.random() < 0.12 else 0.0,
        shrink=rng.uniform(0.3, 0.95) if rng.random() < 0.22 else 1.0,
        noise=rng.uniform(1, 5) if rng.random() < 0.12 else 0.0,
        grain=int(rng.integers(1 << 32)),
        quality=int(rng.integers(40, 96)) if rng.random() < 0.4 else 0,
        halved=bool(rng.random() < 0.7),
    )


def _warp(image: NDArray[Any], turn: NDArray[np.float32], size: int, border: int) -> NDArray[Any]:
    """Warp with the filters of `streams.faces.crop`: area when the scale is below 1, linear above.

    `cv2.warpAffine` takes INTER_AREA and interpolates linearly all the same, which leaves crops sharper than
    those of live video; so the image is scaled down first, and what is left of the map needs no filter.
    """
    scale = math.sqrt(abs(float(np.linalg.det(turn[:, :2]))))
    side = max(1, round(image.shape[0] * scale))
    if side < image.shape[0]:
        # Pixel centres, not corners, lie at whole numbers.
        ratio = image.shape[0] / side
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        back = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
        turn = np.asarray(turn @ back, np.float32)
    return cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _draw_shade(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw lamps of about one colour around the face: some of it is lit, some lies in the shade."""
    places = np.linspace(-1, 1, SHADE_GRID)
    field = np.zeros((SHADE_GRID, SHADE_GRID, 3))
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-1.2, 1.2, 2)
        reach = rng.uniform(0.5, 1.5)
        near = np.exp(-((places[None, :] - x) ** 2 + (places[:, None] - y) ** 2) / (2 * reach**2))
        field += near[..., None] * (rng.normal(0, 0.45) + rng.normal(0, 0.08, 3))
    return np.asarray(np.exp(field - field.mean()), np.float32)


def _draw_cast(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a camera's white balance and saturation, and a turn of the hue; at night there are no colours."""
    saturation = 0.0 if rng.random() < 0.06 else float(np.clip(np.exp(rng.normal(0, 0.35)), 0.3, 2.2))
    hue = rng.normal(0, 0.12)
    # A turn about the grey axis, as Rodrigues has it; greys stay what they are.
    turn = cv2.Rodrigues(np.full(3, hue / np.sqrt(3)))[0]
    grey = np.full((3, 3), 1 / 3)
    balance = np.exp(rng.normal(0, 0.12, 3))
    return np.asarray(balance[:, None] * (grey + saturation * (turn - grey)), np.float32)


def varied(frames: Image, size: int, rng: np.random.Generator) -> Image:
    """Draw a variation and apply it to a clip.

    Args:
        frames: uint8 RGB (T, H, H, 3).
        size: Side of the result in pixels.
        rng: Where the variation is drawn from.

    Returns:
        uint8 RGB (T, size, size, 3).
    """
    variation = draw_variation(frames.shape[1], size, rng)
    return np.stack([variation.apply(frame, index) for index, frame in enumerate(frames)])
