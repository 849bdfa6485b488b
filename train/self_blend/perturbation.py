"""Perturbation of an aligned face, which gives a real face the traces of synthesis frame by frame.

    perturbation = Perturbation.draw(rng)
    perturber = FacePerturber(perturbation, rng)
    for rgb, face in frames:
        perturber.blend(rgb, face)

The face is blended with a copy of itself that was reduced and enlarged as by a decoder, misplaced and bent
anew in every frame, and changed in light, texture and colour. Blending leaves an edge, and the face trembles
and flickers against its surroundings.

Source: Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, for single images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from train.face_swap.alignment import AlignedFace, Image
from train.face_swap.blending import blend_patch, ellipse_mask, face_mask, match_colours
from train.self_blend.noise import NoiseSettings, TemporalNoise, draw_memory, log_uniform

Region = Literal["face", "mouth", "eyes"]

ENLARGEMENTS = {
    cv2.INTER_NEAREST: 0.08,
    cv2.INTER_LINEAR: 0.4,
    cv2.INTER_CUBIC: 0.4,
    cv2.INTER_LANCZOS4: 0.12,
}
"""Interpolation of OpenCV -> its probability."""
REGIONS: dict[Region, float] = {"face": 0.74, "mouth": 0.2, "eyes": 0.06}
"""Region -> its probability."""
MIN_SIDE, MAX_SIDE = 96, 288
"""Limits of the side of the aligned square in pixels; between them it is that of the face in the frame."""
MIN_BLUR = 0.05
"""A smaller blur is left out."""
MIN_BLUR_SIGMA = 0.3
SHARPEN_SIGMA = 1.2
MIN_REGION_SOFTNESS = 0.3


@dataclass(frozen=True, kw_only=True)
class PartEllipse:
    """Ellipse of a part of the face.

    Attributes:
        centre: x and y for a frontal face, in shares of the aligned side.
        radii: Halves of its width and height in shares of the side.
        turn_shift: Shift to the right per shift of the nose.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    turn_shift: float


PARTS = {
    "mouth": PartEllipse(centre=(0.5, 0.7), radii=(0.2, 0.15), turn_shift=0.45),
    "eyes": PartEllipse(centre=(0.5, 0.42), radii=(0.26, 0.1), turn_shift=0.3),
}


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Perturbation of one video; the noises draw anew in every frame, the rest stays.

    Attributes:
        decoder_side: Resolution of the aligned face in pixels, as of a decoder.
        enlargement: Interpolation from this resolution to that of the frame, a flag of OpenCV.
        blur: Standard deviation of the blur before the reduction, in pixels of the decoder.
        sharpening: Strength of the sharpening at the end; 0 for none.
        shift: Standard deviation of the misplacement in x and in y, in shares of the aligned side.
        rotation: Standard deviation of the misplacement's angle in radians.
        scaling: Standard deviation of its scale, relative to 1.
        placement_memory: Memory of the misplacement.
        deformation: Smooth displacement of the pixels, in shares of the aligned side.
        light: Smooth map of brightness in grey levels.
        texture: Finer map of brightness in grey levels.
        gain: Factor of each colour channel, relative to 1.
        matches_colours: Whether the copy gets the colours of the original, by its mean and spread in CIE Lab;
            otherwise `colour_shift` and `contrast` apply.
        colour_shift: Shift of R, G and B in grey levels.
        contrast: Factor of the differences from the mean colour.
        region: Part of the face that is blended.
        mask_scale: Size of its mask relative to that part.
        softness: Width of the mask's soft edge, relative to the mask.
        opacity: Weight of the copy in the middle of the mask.
    """

    decoder_side: int
    enlargement: int
    blur: float
    sharpening: float
    shift: float
    rotation: float
    scaling: float
    placement_memory: float
    deformation: NoiseSettings
    light: NoiseSettings
    texture: NoiseSettings
    gain: NoiseSettings
    matches_colours: bool
    colour_shift: tuple[float, float, float]
    contrast: float
    region: Region
    mask_scale: float
    softness: float
    opacity: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw the perturbation of a video."""
        red, green, blue = rng.normal(0, 4, 3).tolist()
        regions = list(REGIONS)
        return cls(
            decoder_side=int(log_uniform(rng, 44, 150)),
            enlargement=int(rng.choice(list(ENLARGEMENTS), p=list(ENLARGEMENTS.values()))),
            blur=rng.uniform(0, 0.45),
            sharpening=0.0 if rng.random() < 0.5 else rng.uniform(0, 1.2),
            shift=log_uniform(rng, 0.0008, 0.008),
            rotation=log_uniform(rng, 0.001, 0.008),
            scaling=log_uniform(rng, 0.001, 0.006),
            placement_memory=draw_memory(rng),
            deformation=NoiseSettings.draw(rng, 0.0008, 0.008, cells=(4, 9)),
            light=NoiseSettings.draw(rng, 0.2, 3.5, cells=(3, 6)),
            texture=NoiseSettings.draw(rng, 0.2, 3.0, cells=(12, 27)),
            gain=NoiseSettings.draw(rng, 0.0005, 0.012),
            matches_colours=bool(rng.random() < 0.6),
            colour_shift=(red, green, blue),
            contrast=rng.uniform(0.93, 1.07),
            region=regions[rng.choice(len(regions), p=list(REGIONS.values()))],
            mask_scale=rng.uniform(0.78, 1.2),
            softness=rng.uniform(0.15, 0.7),
            opacity=1.0 if rng.random() < 0.5 else rng.uniform(0.75, 1),
        )


class FacePerturber:
    """Perturbation of the faces of one video; frames are passed in the order of time.

    Args:
        perturbation: What is done.
        rng: Random generator of the noises.
    """

    def __init__(self, perturbation: Perturbation, rng: np.random.Generator) -> None:
        self._drawn = perturbation
        placement = NoiseSettings(strength=1.0, memory=perturbation.placement_memory)
        self._placement = TemporalNoise(placement, 4, rng)
        self._deformation = TemporalNoise(perturbation.deformation, 2, rng)
        self._light = TemporalNoise(perturbation.light, 1, rng)
        self._texture = TemporalNoise(perturbation.texture, 1, rng)
        self._gain = TemporalNoise(perturbation.gain, 3, rng)

    def blend(self, rgb: Image, face: AlignedFace) -> None:
        """Blend the face of the next frame with its perturbed copy, in place.

        Args:
            rgb: The frame, changed by this method.
            face: Position of the face.
        """
        drawn = self._drawn
        size = int(np.clip(face.side, MIN_SIDE, MAX_SIDE))
        mask = region_mask(drawn.region, size, face.turn, drawn.mask_scale, drawn.softness)
        patch = self.perturb(face.cut(rgb, size), mask)
        blend_patch(rgb, face, patch, np.float32(drawn.opacity) * mask)

    def perturb(self, patch: Image, mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the perturbed copy of the next aligned face.

        Args:
            patch: Aligned face, RGB uint8 `(size, size, 3)`.
            mask: Weight of each pixel when colours are matched, `(size, size)`.

        Returns:
            RGB float32 in 0..255 of the same shape.
        """
        drawn, size = self._drawn, len(patch)
        moved = self._moved(_decoded(patch, drawn))
        if drawn.matches_colours:
            changed = match_colours(moved, patch, mask).astype(np.float32)
        else:
            mean = moved.astype(np.float32).mean((0, 1))
            changed = (
                (moved - mean) * np.float32(drawn.contrast) + mean + np.array(drawn.colour_shift, np.float32)
            )
        changed = changed * (1 + self._gain.next_map(1)) + self._light.next_map(size)
        changed += self._texture.next_map(size)
        if drawn.sharpening:
            blurred = cv2.GaussianBlur(changed, (0, 0), SHARPEN_SIGMA)
            changed += np.float32(drawn.sharpening) * (changed - blurred)
        return np.clip(changed, 0, 255)

    def _moved(self, patch: Image) -> Image:
        """Misplace and deform a patch."""
        drawn, size = self._drawn, len(patch)
        right, down, angle, growth = self._placement.next_values().ravel()
        turn = (1 + growth * drawn.scaling) * np.exp(1j * angle * drawn.rotation)
        # A similarity transform about the middle is a product of complex numbers.
        rows, columns = np.mgrid[:size, :size].astype(np.float32) - size / 2
        places = turn * (columns + 1j * rows) + (right + 1j * down) * drawn.shift * size
        bend = self._deformation.next_map(size) * size
        x, y = (
            (part + size / 2 + bend[..., axis]).astype(np.float32)
            for axis, part in enumerate((places.real, places.imag))
        )
        moved = cv2.remap(patch, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)


def region_mask(region: Region, size: int, turn: float, scale: float, softness: float) -> NDArray[np.float32]:
    """Return the weight of the perturbed copy, float32 `(size, size)` in 0..1.

    Args:
        region: Part of the face.
        size: Side of the aligned square in pixels.
        turn: Shift of the nose; see `AlignedFace`.
        scale: Size of the mask relative to the part.
        softness: Width of the soft edge, relative to the mask.
    """
    if region == "face":
        return face_mask(size, round(turn, 2), scale, softness)
    part = PARTS[region]
    return ellipse_mask(
        size,
        (part.centre[0] + part.turn_shift * turn, part.centre[1]),
        (scale * part.radii[0], scale * part.radii[1]),
        max(softness, MIN_REGION_SOFTNESS),
    )


def _decoded(patch: Image, drawn: Perturbation) -> Image:
    """Reduce a patch to the resolution of a decoder and enlarge it again."""
    size = len(patch)
    if drawn.blur > MIN_BLUR:
        sigma = max(MIN_BLUR_SIGMA, drawn.blur * size / drawn.decoder_side)
        patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), sigma), np.uint8)
    side = min(drawn.decoder_side, size)
    reduced = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (size, size), interpolation=drawn.enlargement), np.uint8)
