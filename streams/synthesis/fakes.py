"""Forge faces in numpy: a transformed copy of a face blended back through a soft mask.

A face swap leaves the same three traces whatever made it: a blending boundary, colours that do not
quite agree across it, and texture of another resolution inside it. A face blended with a changed copy
of itself has all three and nothing else, so a detector trained on it learns the traces. A reenactment
moves the mouth or the brows of a face that stays its owner's: its traces are texture that was stretched.

    rng = np.random.default_rng(0)
    forgery = sample_fake_parameters(rng)
    fake, mask = make_fake(face, forgery)                        # one still
    fake, mask = make_fake(face, forgery.jitter(rng))           # the same forgery, one frame later

Source: Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022; the boundary as
a cue is from Li et al., "Face X-ray for More General Face Forgery Detection", CVPR 2020; what a
reenactment does from Thies et al., "Face2Face", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]
Region = Literal["face", "lower", "upper", "mouth", "brows"]

_GRID = 5
"""Control points a side of the elastic warp: coarse enough to move a cheek, not a pore."""

# Centre (x, y) and radii (x, y) of the blended region as shares of a crop whose side is the face's height.
_REGIONS: dict[Region, tuple[float, float, float, float]] = {
    "face": (0.50, 0.52, 0.34, 0.42),
    "lower": (0.50, 0.72, 0.28, 0.22),
    "upper": (0.50, 0.38, 0.33, 0.18),
    "mouth": (0.50, 0.74, 0.22, 0.16),
    "brows": (0.50, 0.34, 0.31, 0.14),
}
EXPRESSION_REGIONS: tuple[Region, ...] = ("mouth", "brows")
"""The regions that a reenactment moves: the copy is bent there, not laid upon the face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeParameters:
    """The drawn parameters of one forgery; lengths are shares of the crop's side.

    Attributes:
        centre: (x, y) of the blended region.
        radii: (x, y) half-axes of the blended region.
        ripple: Amplitude and phase of the second to fifth harmonic of its outline.
        feather: Width of the soft edge, as a share of the region's radius.
        opacity: Share of the copy in the middle of the region, 0..1.
        shift: (x, y) translation of the copy.
        stretch: (x, y) scale of the copy about the region's centre.
        rotation_deg: Rotation of the copy.
        warp: Displacements of the elastic control points, (2, 5, 5), shares of the side.
        gain: Per-channel factor on the copy, RGB.
        offset: Per-channel offset on the copy, RGB, in grey levels.
        saturation: Factor on the copy's distance from grey.
        detail: Below 1, the copy is resampled through that scale (blurred); above 1, sharpened by the excess.
        outside: Whether the change is made to what lies around the region instead of to the copy inside it.
        bends: Whether the copy's displacement fades out towards the region's edge, as that of skin does.
        colour_scale: Scale at which a donor's colours are matched to the face's; 0 for as a whole.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    ripple: tuple[tuple[float, float], ...]
    feather: float
    opacity: float
    shift: tuple[float, float]
    stretch: tuple[float, float]
    rotation_deg: float
    warp: NDArray[np.float32]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]
    saturation: float
    detail: float
    outside: bool
    bends: bool
    colour_scale: float

    def jitter(self, rng: np.random.Generator, amount: float = 1.0) -> FakeParameters:
        """Vary the forgery a little, as a generator that treats every frame on its own does.

        Args:
            rng: Where the variation is drawn from.
            amount: 0 leaves the forgery as it is; 1 moves the copy by about half a percent of the side.
        """

        def jitter(values: tuple[float, ...], scale: float) -> tuple[float, ...]:
            return tuple(float(v + amount * scale * rng.standard_normal()) for v in values)

        shift, stretch = jitter(self.shift, 0.005), jitter(self.stretch, 0.006)
        gain, offset = jitter(self.gain, 0.01), jitter(self.offset, 1.5)
        opacity = float(np.clip(self.opacity + amount * 0.04 * rng.standard_normal(), 0.2, 1.0))
        return replace(
            self,
            shift=(shift[0], shift[1]),
            stretch=(stretch[0], stretch[1]),
            gain=(gain[0], gain[1], gain[2]),
            offset=(offset[0], offset[1], offset[2]),
            opacity=opacity,
        )


def sample_fake_parameters(
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    region: Region | None = None,
    outside: bool | None = None,
) -> FakeParameters:
    """Draw a forgery.

    Args:
        rng: Where everything is drawn from; the same state gives the same forgery.
        strength: Scale of the differences between the copy and the face: 1 is about the published
            recipe, 2 is visible at a glance, 0.5 is subtle.
        region: What is blended; when None mostly the whole face, and none of `EXPRESSION_REGIONS`.
        outside: Whether the surroundings are changed instead of the copy; drawn when None.
    """
    if strength <= 0:
        raise ValueError(f"strength must be positive, not {strength}")
    if region is None:
        drawn: tuple[Region, ...] = ("face", "face", "face", "lower", "upper")
        region = drawn[int(rng.integers(5))]
    cx, cy, rx, ry = _REGIONS[region]
    size = rng.uniform(0.8, 1.12)
    s = strength
    bends = region in EXPRESSION_REGIONS
    # Of a region that bends, a mouth that opens stretches most: downwards.
    stretching, sliding, bending = ((0.06, 0.20), 0.020, 0.022) if bends else ((0.025, 0.025), 0.012, 0.010)

    detail = 1.0
    kind = rng.random()
    if kind < 0.55:
        detail = float(np.clip(rng.uniform(0.25, 0.8) ** (0.5 + 0.5 * s), 0.12, 1.0))
    elif kind < 0.75:
        detail = 1.0 + rng.uniform(0.2, 0.8) * s
    # Skin that is moved keeps its colour but for the light.
    c = 0.4 * s if bends else s
    colour = rng.normal(0.0, 8.0 * c, 3) + rng.normal(0.0, 6.0 * c)
    gain = 1.0 + rng.normal(0.0, 0.05 * c, 3) + rng.normal(0.0, 0.05 * c)
    return FakeParameters(
        centre=(cx + rng.normal(0, 0.02), cy + rng.normal(0, 0.02)),
        radii=(rx * size * rng.uniform(0.88, 1.12), ry * size * rng.uniform(0.88, 1.1)),
        ripple=tuple((float(rng.uniform(0, 0.10)), float(rng.uniform(0, 2 * np.pi))) for _ in range(4)),
        feather=float(rng.choice([0.35, 0.5, 0.7, 0.9] if bends else [0.06, 0.12, 0.2, 0.35])),
        opacity=float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0])),
        shift=(float(rng.normal(0, 0.014 * s)), float(rng.normal(0, sliding * s))),
        stretch=_stretch(rng, stretching[0] * s, stretching[1] * s),
        rotation_deg=float(rng.normal(0, 1.2 * s)),
        warp=rng.normal(0, bending * s, (2, _GRID, _GRID)).astype(np.float32),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        offset=(float(colour[0]), float(colour[1]), float(colour[2])),
        saturation=float(np.clip(1 + rng.normal(0, 0.12 * c), 0.2, 2.5)),
        detail=detail,
        outside=bool(rng.random() < 0.3) and not bends if outside is None else outside,
        bends=bends,
        colour_scale=float(rng.uniform(0.06, 0.3)) if rng.random() < 0.5 else 0.0,
    )


def _stretch(rng: np.random.Generator, across: float, down: float) -> tuple[float, float]:
    """Draw two scales about 1 with these deviations; at most a face and a half, at least half a one."""
    x, y = 1 + across * rng.standard_normal(), 1 + down * rng.standard_normal()
    return float(np.clip(x, 0.5, 1.5)), float(np.clip(y, 0.5, 1.5))


def make_fake(face: Image, forgery: FakeParameters, *, donor: Image | None = None) -> tuple[Image, Mask]:
    """Blend a changed copy of a face, or of another one, into it.

    Args:
        face: uint8 RGB (H, W, 3), a square crop centred on the face with a side of about its height.
        forgery: What to do, from `sample_fake_parameters`.
        donor: uint8 RGB of the same shape: the face to blend in, its colours first matched to `face`;
            the face itself when None.

    Returns:
        The forged crop, uint8 RGB (H, W, 3), and the share of the copy in every pixel, float32 (H, W), 0..1.

    Raises:
        ValueError: The shapes differ or are not (H, W, 3).
    """
    if face.ndim != 3 or face.shape[2] != 3:
        raise ValueError(f"face must have shape (H, W, 3), not {face.shape}")
    if donor is not None and donor.shape != face.shape:
        raise ValueError(f"donor has shape {donor.shape}, the face {face.shape}")
    mask = blend_mask(face.shape[0], face.shape[1], forgery)
    if donor is None:
        copy = face.astype(np.float32)
    elif forgery.colour_scale:
        copy = _match_shades(donor, face, forgery.colour_scale)
    else:
        copy = _match_colours(donor, face)
    base = face.astype(np.float32)
    if forgery.outside:
        base = _recolour(_resample(base, forgery.detail), forgery)
    else:
        copy = _recolour(_resample(copy, forgery.detail), forgery)
    copy = _displace(copy, forgery, mask / forgery.opacity if forgery.bends else None)
    blended = base + mask[:, :, None] * (copy - base)
    return np.clip(blended + 0.5, 0, 255).astype(np.uint8), mask


def self_blend(face: Image, rng: np.random.Generator, *, strength: float = 1.0) -> tuple[Image, Mask]:
    """Draw a forgery and apply it: `make_fake(face, sample_fake_parameters(rng, strength=strength))`."""
    return make_fake(face, sample_fake_parameters(rng, strength=strength))


def blend_mask(height: int, width: int, forgery: FakeParameters) -> Mask:
    """Draw the soft mask of a forgery: float32 (height, width), 0..opacity."""
    # The outline is smooth, so it is drawn at half the size and scaled up: a quarter of the arctangents.
    rows, columns = max(height // 2, 2), max(width // 2, 2)
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows - forgery.centre[1]) / forgery.radii[1]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns - forgery.centre[0]) / forgery.radii[0]
    radius = np.hypot(x[None, :], y[:, None])
    angle = np.arctan2(y[:, None], x[None, :])
    outline = np.ones_like(radius)
    for harmonic, (amplitude, phase) in enumerate(forgery.ripple, start=2):
        outline += amplitude / harmonic * np.cos(harmonic * angle + phase)
    ramp = np.clip((outline - radius) / max(forgery.feather, 1e-3), 0.0, 1.0)
    soft = ramp * ramp * (3.0 - 2.0 * ramp) * forgery.opacity
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _match_colours(donor: Image, face: Image) -> NDArray[np.float32]:
    """Give the donor the face's mean and spread in each channel, the least a face swap does."""
    ours, theirs = face.reshape(-1, 3).astype(np.float32), donor.reshape(-1, 3).astype(np.float32)
    scale = (ours.std(0) + 1.0) / (theirs.std(0) + 1.0)
    return np.asarray((donor - theirs.mean(0)) * np.clip(scale, 0.5, 2.0) + ours.mean(0), np.float32)


def _match_shades(donor: Image, face: Image, scale: float) -> NDArray[np.float32]:
    """Give the donor the face's light and shade down to a scale, as swaps do that correct colours."""
    height, width = face.shape[:2]
    # Shades are smooth, so a sixteenth of the pixels shows them.
    small = (max(width // 4, 1), max(height // 4, 1))
    shades = [
        cv2.GaussianBlur(
            cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.float32),
            (0, 0),
            scale * small[1],
        )
        for image in (face, donor)
    ]
    ratio = np.clip((shades[0] + 8) / (shades[1] + 8), 0.25, 4.0)
    return np.asarray(donor * cv2.resize(ratio, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _resample(image: NDArray[np.float32], detail: float) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    if detail < 1.0:
        small = cv2.resize(
            image, (max(int(width * detail), 8), max(int(height * detail), 8)), interpolation=cv2.INTER_AREA
        )
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    if detail > 1.0:
        return np.asarray(image + (detail - 1.0) * (image - cv2.GaussianBlur(image, (0, 0), 1.2)), np.float32)
    return image


def _recolour(image: NDArray[np.float32], forgery: FakeParameters) -> NDArray[np.float32]:
    grey = image.mean(axis=2, keepdims=True)
    vivid = grey + np.float32(forgery.saturation) * (image - grey)
    return np.asarray(
        vivid * np.asarray(forgery.gain, np.float32) + np.asarray(forgery.offset, np.float32), np.float32
    )


def _displace(
    image: NDArray[np.float32], forgery: FakeParameters, share: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Move, turn, scale and warp the copy in one resampling; everywhere in full, or by a share (H, W)."""
    height, width = image.shape[:2]
    turn = np.deg2rad(forgery.rotation_deg)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x = (np.arange(width, dtype=np.float32)[None, :] / width - np.float32(forgery.centre[0])).repeat(
        height, 0
    )
    y = (np.arange(height, dtype=np.float32)[:, None] / height - np.float32(forgery.centre[1])).repeat(
        width, 1
    )
    bend = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in forgery.warp]
    u = (cos * x + sin * y) / np.float32(forgery.stretch[0]) - np.float32(forgery.shift[0]) + bend[0]
    v = (cos * y - sin * x) / np.float32(forgery.stretch[1]) - np.float32(forgery.shift[1]) + bend[1]
    if share is not None:
        u, v = x + share * (u - x), y + share * (v - y)
    map_x = (u + np.float32(forgery.centre[0])) * width
    map_y = (v + np.float32(forgery.centre[1])) * height
    return np.asarray(
        cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )
