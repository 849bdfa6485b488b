"""Random augmentation of crops: position, scale, mirroring, light, colour, blur, noise, compression.

    clip = augment_clip(frames, size=160, rng=rng)        # one augmentation for all frames

One augmentation is drawn and applied to all frames of a clip, or to a real crop, its fake and (geometry only)
the fake's region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.crops import jpeg_roundtrip

Image = NDArray[np.uint8]

SHADING_GRID = 5
"""Grid points per side at which shading is drawn; a finer grid would alter the face, not its lighting."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Parameters of one augmentation.

    Attributes:
        size: Side of the result in pixels.
        transform: Affine map `(2, 3)` from source to result pixels.
        light: Look-up table `(1, 256, 3)` of exposure, gamma and tint; None for none.
        shading: Brightness factors `(5, 5, 3)` on a grid over the result; None for none.
        colour: Colour matrix `(3, 3)`; None for none.
        blur: Standard deviation of the Gaussian blur in pixels of the result; 0 for none.
        sharpen: Weight of unsharp masking, which cameras and broadcasters apply; 0 for none.
        downscale: Factor by which the result is scaled down and up again, 0..1; 1 for none.
        noise: Standard deviation of the noise in grey levels; 0 for none.
        noise_seed: Seed of the noise.
        jpeg_quality: Quality of the JPEG compression, 1..100; 0 for none.
        halve_chroma: Whether that JPEG stores colour at half resolution, as video does.
    """

    size: int
    transform: NDArray[np.float32]
    light: Image | None
    shading: NDArray[np.float32] | None
    colour: NDArray[np.float32] | None
    blur: float
    sharpen: float
    downscale: float
    noise: float
    noise_seed: int
    jpeg_quality: int
    halve_chroma: bool

    def apply(self, frame: Image, index: int = 0) -> Image:
        """Return an augmented frame.

        Args:
            frame: RGB uint8 `(H, W, 3)`.
            index: Number of the frame in its clip; each frame has its own noise.

        Returns:
            RGB uint8 `(size, size, 3)`.
        """
        return self.adjust(self.warp(frame), index)

    def warp(self, frame: Image, first: NDArray[np.float32] | None = None) -> Image:
        """Apply the geometry, in one resampling.

        Args:
            frame: RGB uint8 `(H, W, 3)`.
            first: Affine map `(2, 3)` to apply before; None for none.

        Returns:
            RGB uint8 `(size, size, 3)`.
        """
        return np.asarray(_warp(frame, self._after(first), self.size, cv2.BORDER_REPLICATE), np.uint8)

    def warp_region(
        self, region: NDArray[np.float32], first: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Apply the geometry to a region: float32 `(H, W)` to `(size, size)`, 0 outside; see `warp`."""
        return np.asarray(_warp(region, self._after(first), self.size, cv2.BORDER_CONSTANT), np.float32)

    def adjust(self, warped: Image, index: int = 0) -> Image:
        """Apply everything but the geometry: light, colour, blur, noise and compression; see `apply`."""
        size = (self.size, self.size)
        image: NDArray[Any] = warped
        if self.light is not None:
            image = cv2.LUT(image, self.light)
        if self.shading is not None:
            factors = cv2.resize(self.shading, size, interpolation=cv2.INTER_CUBIC)
            image = cv2.multiply(image, factors, dtype=cv2.CV_8U)
        if self.colour is not None:
            image = cv2.transform(image, self.colour)
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.downscale < 1:
            scale = self.downscale
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
        if self.sharpen:
            soft = cv2.GaussianBlur(image, (0, 0), 1.2)
            image = cv2.addWeighted(image, 1 + self.sharpen, soft, -self.sharpen, 0)
        if self.noise:
            noise = np.random.default_rng((self.noise_seed, index)).normal(0, self.noise, image.shape)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if self.jpeg_quality:
            image = jpeg_roundtrip(
                np.asarray(image, np.uint8), self.jpeg_quality, halve_chroma=self.halve_chroma
            )
        return np.asarray(image, np.uint8)

    def _after(self, first: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if first is None:
            return self.transform
        return np.asarray(self.transform @ np.vstack([first, [0, 0, 1]]), np.float32)


def draw_augmentation(side: int, size: int, rng: np.random.Generator, *, zoom: float = 1.0) -> Augmentation:
    """Draw the parameters of an augmentation.

    Args:
        side: Side of the source frames in pixels.
        size: Side of the result in pixels.
        rng: Random generator.
        zoom: Largest enlargement; the enlarged part stays within the frame.

    Returns:
        The augmentation.
    """
    enlarged = float(np.exp(rng.uniform(0, np.log(zoom)))) if zoom > 1 else 1.0
    scale = size / side * rng.uniform(0.97, 1.12) * enlarged
    slack = (enlarged - 1) / 2 * size
    shift = size / 2 - scale * side / 2 + rng.normal(0, 0.02 * size, 2) + rng.uniform(-slack, slack, 2)
    if rng.random() < 0.5:
        transform = [[-scale, 0, size - shift[0]], [0, scale, shift[1]]]
    else:
        transform = [[scale, 0, shift[0]], [0, scale, shift[1]]]
    light = None
    if rng.random() < 0.5:
        ramp = np.arange(256) / 255.0
        gain, gamma = rng.normal(1, 0.12), np.exp(rng.normal(0, 0.2))
        tint = rng.normal(0, 5, 3)
        if rng.random() < 0.2:  # underexposed
            gain, tint = gain * np.exp(rng.uniform(-1.7, -0.4)), 0.4 * tint
        light = np.clip(255 * gain * ramp[:, None] ** gamma + tint, 0, 255).astype(np.uint8)[None]
    return Augmentation(
        size=size,
        transform=np.array(transform, np.float32),
        light=light,
        shading=_draw_shading(rng) if rng.random() < 0.3 else None,
        colour=_draw_colour_matrix(rng) if rng.random() < 0.5 else None,
        blur=rng.uniform(0.003, 0.011) * size if rng.random() < 0.2 else 0.0,
        sharpen=rng.uniform(0.3, 1.5) if rng.random() < 0.12 else 0.0,
        downscale=rng.uniform(0.3, 0.95) if rng.random() < 0.22 else 1.0,
        noise=rng.uniform(1, 5) if rng.random() < 0.12 else 0.0,
        noise_seed=int(rng.integers(1 << 32)),
        jpeg_quality=int(rng.integers(40, 96)) if rng.random() < 0.4 else 0,
        halve_chroma=bool(rng.random() < 0.7),
    )


def _warp(image: NDArray[Any], transform: NDArray[np.float32], size: int, border: int) -> NDArray[Any]:
    """Warp with the filters of `streams.faces.crop`: area when the scale is below 1, linear above.

    `cv2.warpAffine` accepts INTER_AREA but interpolates linearly, which leaves crops sharper than those of
    live video. The image is therefore scaled down with an area filter first.
    """
    scale = math.sqrt(abs(float(np.linalg.det(transform[:, :2]))))
    side = max(1, round(image.shape[0] * scale))
    if side < image.shape[0]:
        # Coordinates refer to pixel centres.
        ratio = image.shape[0] / side
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        back = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
        transform = np.asarray(transform @ back, np.float32)
    return cv2.warpAffine(image, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _draw_shading(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the uneven light of one to three lamps around the face, as factors (5, 5, 3)."""
    positions = np.linspace(-1, 1, SHADING_GRID)
    field = np.zeros((SHADING_GRID, SHADING_GRID, 3))
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-1.2, 1.2, 2)
        reach = rng.uniform(0.5, 1.5)
        near = np.exp(-((positions[None, :] - x) ** 2 + (positions[:, None] - y) ** 2) / (2 * reach**2))
        field += near[..., None] * (rng.normal(0, 0.45) + rng.normal(0, 0.08, 3))
    return np.asarray(np.exp(field - field.mean()), np.float32)


def _draw_colour_matrix(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a matrix (3, 3) of white balance, saturation (0 for night vision) and hue rotation."""
    saturation = 0.0 if rng.random() < 0.06 else float(np.clip(np.exp(rng.normal(0, 0.35)), 0.3, 2.2))
    hue = rng.normal(0, 0.12)
    # A rotation about the grey axis leaves greys unchanged.
    rotation = cv2.Rodrigues(np.full(3, hue / np.sqrt(3)))[0]
    grey = np.full((3, 3), 1 / 3)
    balance = np.exp(rng.normal(0, 0.12, 3))
    return np.asarray(balance[:, None] * (grey + saturation * (rotation - grey)), np.float32)


def augment_clip(frames: Image, size: int, rng: np.random.Generator) -> Image:
    """Draw an augmentation and apply it to all frames of a clip.

    Args:
        frames: RGB uint8 `(T, H, H, 3)`.
        size: Side of the result in pixels.
        rng: Random generator.

    Returns:
        RGB uint8 `(T, size, size, 3)`.
    """
    augmentation = draw_augmentation(frames.shape[1], size, rng)
    return np.stack([augmentation.apply(frame, index) for index, frame in enumerate(frames)])
