"""Synthetic fakes in numpy: a transformed copy of a face, or another face, blended in through a soft mask.

Every method of face swapping leaves three traces: a blending boundary, colours that differ slightly across
it, and texture of another resolution inside it. A face blended with a transformed copy of itself has these
traces and no others, so a detector trained on it learns the traces. A reenactment moves the mouth or the
brows of the same face; its trace is stretched texture.

    rng = np.random.default_rng(0)
    parameters = sample_fake_parameters(rng)
    fake, mask = make_fake(face, parameters)                # a single image
    fake, mask = make_fake(face, parameters.jitter(rng))    # the same fake, one frame later

Sources: Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022; Li et al., "Face
X-ray for More General Face Forgery Detection", CVPR 2020 (the boundary as a cue); Thies et al.,
"Face2Face", CVPR 2016 (reenactment).
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
"""Control points per side of the elastic warp; coarse, so that it moves cheeks and not pores."""

_MARGIN = 1.02
"""Side, in heights of the face, of the crops that the lengths of this module are drawn for."""
# Region -> centre (x, y) and radii (x, y) as shares of the side of such a crop.
_REGIONS: dict[Region, tuple[float, float, float, float]] = {
    "face": (0.50, 0.52, 0.34, 0.42),
    "lower": (0.50, 0.72, 0.28, 0.22),
    "upper": (0.50, 0.38, 0.33, 0.18),
    "mouth": (0.50, 0.74, 0.22, 0.16),
    "brows": (0.50, 0.34, 0.31, 0.14),
}
EXPRESSION_REGIONS: tuple[Region, ...] = ("mouth", "brows")
"""Regions that a reenactment moves; the copy is warped there instead of replacing the region."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeParameters:
    """Parameters of one synthetic fake; lengths are shares of the crop's side.

    Attributes:
        centre: (x, y) of the blended region.
        radii: (x, y) half-axes of the blended region.
        ripple: (amplitude, phase) of the second to fifth harmonic of the region's outline.
        feather: Width of the soft edge, as a share of the region's radius.
        opacity: Weight of the copy in the middle of the region, 0..1.
        shift: (x, y) translation of the copy.
        stretch: (x, y) scale of the copy about the region's centre.
        rotation_deg: Rotation of the copy in degrees.
        warp: Displacements of the control points of the elastic warp, float32 (2, 5, 5).
        gain: Per-channel factor on the copy, RGB.
        offset: Per-channel offset on the copy, RGB, in grey levels.
        saturation: Factor on the colour saturation of the copy.
        detail: Below 1, the copy is downscaled by this factor and upscaled again; above 1, it is sharpened
            by the excess.
        outside: Whether colour and detail are changed around the region instead of in the copy inside it.
        elastic: Whether the displacement fades out towards the edge of the region, like that of moved skin.
        colour_scale: Scale at which the colours of a donor are matched to the face; 0 to match only the mean
            and the standard deviation of each channel.
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
    elastic: bool
    colour_scale: float

    def jitter(self, rng: np.random.Generator, amount: float = 1.0) -> FakeParameters:
        """Return slightly different parameters, as of a generator that processes each frame separately.

        Args:
            rng: Random generator.
            amount: Scale of the variation; 1 moves the copy by about half a percent of the side, 0 changes
                nothing.
        """

        def varied(values: tuple[float, ...], scale: float) -> tuple[float, ...]:
            return tuple(float(v + amount * scale * rng.standard_normal()) for v in values)

        shift, stretch = varied(self.shift, 0.005), varied(self.stretch, 0.006)
        gain, offset = varied(self.gain, 0.01), varied(self.offset, 1.5)
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
    margin: float = _MARGIN,
) -> FakeParameters:
    """Draw the parameters of a synthetic fake.

    Args:
        rng: Random generator; the same state gives the same parameters.
        strength: Scale of the differences between the copy and the face: 1 is about the published
            recipe, 2 is visible at a glance, 0.5 is subtle.
        region: Blended region; if None it is drawn, mostly the whole face and never one of
            `EXPRESSION_REGIONS`.
        outside: Whether the surroundings are changed instead of the copy; drawn if None.
        margin: Side of the crop as a multiple of the height of the face.

    Raises:
        ValueError: `strength` or `margin` is not positive.
    """
    if strength <= 0 or margin <= 0:
        raise ValueError(f"strength and margin must be positive, not {strength} and {margin}")
    return _scaled(_sample(rng, strength, region, outside), _MARGIN / margin)


def _sample(
    rng: np.random.Generator, strength: float, region: Region | None, outside: bool | None
) -> FakeParameters:
    """Draw the parameters for a crop of the margin `_MARGIN`."""
    if region is None:
        drawn: tuple[Region, ...] = ("face", "face", "face", "lower", "upper")
        region = drawn[int(rng.integers(5))]
    cx, cy, rx, ry = _REGIONS[region]
    size = rng.uniform(0.8, 1.12)
    s = strength
    elastic = region in EXPRESSION_REGIONS
    # Standard deviations. An expression stretches most in the vertical direction, when the mouth opens.
    stretch_std = (0.06, 0.20) if elastic else (0.025, 0.025)
    shift_std, warp_std = (0.020, 0.022) if elastic else (0.012, 0.010)
    detail = _detail(rng, s)
    # Moved skin keeps its colour; only the light on it changes.
    c = 0.4 * s if elastic else s
    colour = rng.normal(0.0, 8.0 * c, 3) + rng.normal(0.0, 6.0 * c)
    gain = 1.0 + rng.normal(0.0, 0.05 * c, 3) + rng.normal(0.0, 0.05 * c)
    return FakeParameters(
        centre=(cx + rng.normal(0, 0.02), cy + rng.normal(0, 0.02)),
        radii=(rx * size * rng.uniform(0.88, 1.12), ry * size * rng.uniform(0.88, 1.1)),
        ripple=tuple((float(rng.uniform(0, 0.10)), float(rng.uniform(0, 2 * np.pi))) for _ in range(4)),
        feather=float(rng.choice([0.35, 0.5, 0.7, 0.9] if elastic else [0.06, 0.12, 0.2, 0.35])),
        opacity=float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0])),
        shift=(float(rng.normal(0, 0.014 * s)), float(rng.normal(0, shift_std * s))),
        stretch=_stretch(rng, stretch_std[0] * s, stretch_std[1] * s),
        rotation_deg=float(rng.normal(0, 1.2 * s)),
        warp=rng.normal(0, warp_std * s, (2, _GRID, _GRID)).astype(np.float32),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        offset=(float(colour[0]), float(colour[1]), float(colour[2])),
        saturation=float(np.clip(1 + rng.normal(0, 0.12 * c), 0.2, 2.5)),
        detail=detail,
        outside=bool(rng.random() < 0.3) and not elastic if outside is None else outside,
        elastic=elastic,
        colour_scale=float(rng.uniform(0.06, 0.3)) if rng.random() < 0.5 else 0.0,
    )


def _scaled(parameters: FakeParameters, scale: float) -> FakeParameters:
    """Return the parameters for a crop in which the face is `scale` times as high."""
    (x, y), (across, down), (right, below) = parameters.centre, parameters.radii, parameters.shift
    return replace(
        parameters,
        centre=(x + (scale - 1) * (x - 0.5), y + (scale - 1) * (y - 0.5)),
        radii=(scale * across, scale * down),
        shift=(scale * right, scale * below),
        warp=np.float32(scale) * parameters.warp,
        colour_scale=scale * parameters.colour_scale,
    )


def _detail(rng: np.random.Generator, strength: float) -> float:
    kind = rng.random()
    if kind < 0.55:
        return float(np.clip(rng.uniform(0.25, 0.8) ** (0.5 + 0.5 * strength), 0.12, 1.0))
    return 1.0 + rng.uniform(0.2, 0.8) * strength if kind < 0.75 else 1.0


def _stretch(rng: np.random.Generator, across: float, down: float) -> tuple[float, float]:
    """Draw scales (x, y) about 1 with these standard deviations, within 0.5..1.5."""
    x, y = 1 + across * rng.standard_normal(), 1 + down * rng.standard_normal()
    return float(np.clip(x, 0.5, 1.5)), float(np.clip(y, 0.5, 1.5))


def make_fake(face: Image, parameters: FakeParameters, *, donor: Image | None = None) -> tuple[Image, Mask]:
    """Make a synthetic fake: blend a changed copy of the face, or of another one, into it.

    Args:
        face: RGB uint8 (H, W, 3), a square crop centred on the face.
        parameters: Parameters from `sample_fake_parameters`, for the margin of the crop.
        donor: RGB uint8 of the same shape: the face to blend in after its colours are matched to `face`;
            the face itself if None.

    Returns:
        The fake crop, RGB uint8 (H, W, 3), and the weight of the copy in every pixel, float32 (H, W), 0..1.

    Raises:
        ValueError: The shapes differ or are not (H, W, 3).
    """
    if face.ndim != 3 or face.shape[2] != 3:
        raise ValueError(f"face must have shape (H, W, 3), not {face.shape}")
    if donor is not None and donor.shape != face.shape:
        raise ValueError(f"donor has shape {donor.shape}, the face {face.shape}")
    mask = blend_mask(face.shape[0], face.shape[1], parameters)
    if donor is None:
        copy = face.astype(np.float32)
    elif parameters.colour_scale:
        copy = _match_shading(donor, face, parameters.colour_scale)
    else:
        copy = _match_channels(donor, face)
    base = face.astype(np.float32)
    if parameters.outside:
        base = _recolour(_resample(base, parameters.detail), parameters)
    else:
        copy = _recolour(_resample(copy, parameters.detail), parameters)
    copy = _displace(copy, parameters, mask / parameters.opacity if parameters.elastic else None)
    blended = base + mask[:, :, None] * (copy - base)
    return np.clip(blended + 0.5, 0, 255).astype(np.uint8), mask


def self_blend(
    face: Image, rng: np.random.Generator, *, strength: float = 1.0, margin: float = _MARGIN
) -> tuple[Image, Mask]:
    """Blend a face with a changed copy of itself; parameters are drawn from `rng`, see `make_fake`."""
    return make_fake(face, sample_fake_parameters(rng, strength=strength, margin=margin))


def blend_mask(height: int, width: int, parameters: FakeParameters) -> Mask:
    """Render the soft blending mask, float32 (height, width), 0..opacity."""
    # The outline is smooth, so it is rendered at half the size and upscaled, which saves time.
    rows, columns = max(height // 2, 2), max(width // 2, 2)
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows - parameters.centre[1]) / parameters.radii[1]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns - parameters.centre[0]) / parameters.radii[0]
    radius = np.hypot(x[None, :], y[:, None])
    angle = np.arctan2(y[:, None], x[None, :])
    outline = np.ones_like(radius)
    for harmonic, (amplitude, phase) in enumerate(parameters.ripple, start=2):
        outline += amplitude / harmonic * np.cos(harmonic * angle + phase)
    ramp = np.clip((outline - radius) / max(parameters.feather, 1e-3), 0.0, 1.0)
    soft = ramp * ramp * (3.0 - 2.0 * ramp) * parameters.opacity
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _match_channels(donor: Image, face: Image) -> NDArray[np.float32]:
    """Match mean and standard deviation of each channel of the donor to the face, as simple swaps do."""
    wanted, given = face.reshape(-1, 3).astype(np.float32), donor.reshape(-1, 3).astype(np.float32)
    scale = np.clip((wanted.std(0) + 1.0) / (given.std(0) + 1.0), 0.5, 2.0)
    return np.asarray((donor - given.mean(0)) * scale + wanted.mean(0), np.float32)


def _match_shading(donor: Image, face: Image, scale: float) -> NDArray[np.float32]:
    """Match the shading of the donor to the face down to a scale, as swaps with colour correction do."""
    height, width = face.shape[:2]
    # Shading is smooth, so a sixteenth of the pixels is enough.
    small = (max(width // 4, 1), max(height // 4, 1))
    shading = [
        cv2.GaussianBlur(
            cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.float32),
            (0, 0),
            scale * small[1],
        )
        for image in (face, donor)
    ]
    ratio = np.clip((shading[0] + 8) / (shading[1] + 8), 0.25, 4.0)
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


def _recolour(image: NDArray[np.float32], parameters: FakeParameters) -> NDArray[np.float32]:
    grey = image.mean(axis=2, keepdims=True)
    saturated = grey + np.float32(parameters.saturation) * (image - grey)
    return np.asarray(
        saturated * np.asarray(parameters.gain, np.float32) + np.asarray(parameters.offset, np.float32),
        np.float32,
    )


def _displace(
    image: NDArray[np.float32], parameters: FakeParameters, weight: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Shift, rotate, scale and warp the copy in one resampling, weighted per pixel by `weight` (H, W)."""
    height, width = image.shape[:2]
    angle_rad = np.deg2rad(parameters.rotation_deg)
    cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    x = (np.arange(width, dtype=np.float32)[None, :] / width - np.float32(parameters.centre[0])).repeat(
        height, 0
    )
    y = (np.arange(height, dtype=np.float32)[:, None] / height - np.float32(parameters.centre[1])).repeat(
        width, 1
    )
    warp = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in parameters.warp]
    u = (cos * x + sin * y) / np.float32(parameters.stretch[0]) - np.float32(parameters.shift[0]) + warp[0]
    v = (cos * y - sin * x) / np.float32(parameters.stretch[1]) - np.float32(parameters.shift[1]) + warp[1]
    if weight is not None:
        u, v = x + weight * (u - x), y + weight * (v - y)
    map_x = (u + np.float32(parameters.centre[0])) * width
    map_y = (v + np.float32(parameters.centre[1])) * height
    return np.asarray(
        cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )
