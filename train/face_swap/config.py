"""Settings of face-swap generators and of the videos made with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.errors import ConfigInvalid

Upsampler = Literal["transposed", "nearest", "pixel-shuffle", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class GeneratorDesign:
    """Architecture of a generator, and how its output is pasted.

    Args:
        size: Side of the aligned face in pixels, input and output; a multiple of 16.
        upsampler: How the decoder doubles its maps.
        bottleneck: Length of the code between encoder and decoder.
        width: Channels of the decoder's last maps but one; the encoder's grow from it.
        mask_scale: Size of the pasted ellipse relative to the whole face.
        softness: Width of the mask's soft edge, relative to the ellipse.
        sharpen: Strength of the sharpening of the decoder's output; 0 for none.
    """

    size: int
    upsampler: Upsampler
    bottleneck: int
    width: int
    mask_scale: float = 1.0
    softness: float = 0.25
    sharpen: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise ConfigInvalid(f"size must be a multiple of 16 and at least 32, not {self.size}")
        if min(self.bottleneck, self.width) < 4:
            raise ConfigInvalid("bottleneck and width must be at least 4")

    @property
    def name(self) -> str:
        """Return the name for files and manifests."""
        return f"{self.upsampler}-{self.size}"


DESIGNS = (
    GeneratorDesign(size=96, upsampler="pixel-shuffle", bottleneck=256, width=32, sharpen=0.5),
    GeneratorDesign(size=128, upsampler="transposed", bottleneck=384, width=24, softness=0.35, sharpen=0.3),
    GeneratorDesign(size=80, upsampler="nearest", bottleneck=192, width=32, mask_scale=0.92, sharpen=0.8),
    GeneratorDesign(size=112, upsampler="bilinear", bottleneck=256, width=28, softness=0.2, sharpen=0.6),
    GeneratorDesign(size=128, upsampler="pixel-shuffle", bottleneck=512, width=24, mask_scale=0.96),
    GeneratorDesign(size=64, upsampler="transposed", bottleneck=128, width=40, softness=0.4, sharpen=1.0),
    GeneratorDesign(size=112, upsampler="nearest", bottleneck=384, width=24, mask_scale=1.04, sharpen=0.3),
    GeneratorDesign(size=96, upsampler="bilinear", bottleneck=128, width=32, softness=0.15, sharpen=0.4),
)
"""Designs of the generators, in the order in which they are used."""


@dataclass(frozen=True, kw_only=True)
class SwapConfig:
    """Settings of a run.

    Args:
        designs: One generator of each split is fitted for each design.
        videos: Maximum number of videos of each generator.
        sources: Number of identities of each generator with a decoder of their own.
        swap_share: Share of the videos that get another face; the others are reconstructed.
        steps: Fitting steps of each generator.
        batch: Faces per step.
        lr: Learning rate at the start.
        seconds: Duration taken from the start of each video.
        min_faces: Minimum number of frames with a face; videos with fewer are left out.
        max_side: Longer side of the written videos; larger frames are scaled down.
        crf: Quality of the written videos, by x264's scale.
        threads: CPU threads.
        seed: Seed of the choice of videos, of the fit and of the pasting.

    Raises:
        ConfigInvalid: A value is out of its range.
    """

    designs: tuple[GeneratorDesign, ...] = DESIGNS[:6]
    videos: int = 10
    sources: int = 2
    swap_share: float = 0.75
    steps: int = 2400
    batch: int = 16
    lr: float = 1e-3
    seconds: float = 8.0
    min_faces: int = 24
    max_side: int = 1280
    crf: int = 15
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "steps", "batch", "min_faces", "threads"):
            if getattr(self, name) < 1:
                raise ConfigInvalid(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.designs:
            raise ConfigInvalid("designs must not be empty")
        if self.videos < 2:
            raise ConfigInvalid(f"videos must be at least 2, not {self.videos}")
        if not 0 <= self.swap_share <= 1:
            raise ConfigInvalid(f"swap_share must be within 0..1, not {self.swap_share}")
        if not 0 <= self.crf <= 51:
            raise ConfigInvalid(f"crf must be within 0..51, not {self.crf}")
        if self.max_side < 64:
            raise ConfigInvalid(f"max_side must be at least 64, not {self.max_side}")
        for name in ("lr", "seconds"):
            if not getattr(self, name) > 0:
                raise ConfigInvalid(f"{name} must be above 0, not {getattr(self, name)}")
