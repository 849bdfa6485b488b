"""Face-swap autoencoder: one encoder for all people, a decoder for each source, and one for everybody.

The encoder learns pose and expression, because a decoder that knows only one person's face must draw them
with it. To swap, a face is encoded and decoded by the decoder of another person.

Source: Perov et al., "DeepFaceLab: Integrated, flexible and extensible face-swapping framework", 2020 (the
DF structure; live face-swap models have one source and a decoder of many other people).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.face_swap.config import GeneratorDesign, Upsampler

SLOPE = 0.1
STAGES = 4
"""Number of times that the encoder halves its maps and the decoder doubles them."""
MIN_CONTRAST = 0.03


class Doubling(nn.Module):
    """Map of twice the height and width.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        kind: How the map is enlarged.
    """

    def __init__(self, channels: int, out: int, kind: Upsampler) -> None:
        super().__init__()
        self._kind = kind
        self.layer: nn.Module
        if kind == "transposed":
            self.layer = nn.ConvTranspose2d(channels, out, 4, 2, 1)
        elif kind == "pixel-shuffle":
            self.layer = nn.Sequential(nn.Conv2d(channels, 4 * out, 3, padding=1), nn.PixelShuffle(2))
        else:
            self.layer = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the enlarged map, after the activation."""
        if self._kind == "nearest":
            maps = F.interpolate(maps, scale_factor=2)
        elif self._kind == "bilinear":
            maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        return F.leaky_relu(self.layer(maps), SLOPE)


class Residual(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        changed = self.second(F.leaky_relu(self.first(maps), SLOPE))
        return F.leaky_relu(maps + changed, SLOPE)


class Decoder(nn.Module):
    """Decoder of one person's face, or of everybody's."""

    def __init__(self, design: GeneratorDesign) -> None:
        super().__init__()
        self._side = design.size // 2**STAGES
        widths = [design.width * factor for factor in (8, 4, 2, 1)]
        self._channels = widths[0]
        self.start = nn.Linear(design.bottleneck, widths[0] * self._side**2)
        stages: list[nn.Module] = []
        for channels, out in zip(widths, [*widths[1:], max(8, design.width // 2)], strict=True):
            stages += [Doubling(channels, out, design.upsampler)]
            if out >= design.width:
                stages += [Residual(out)]
        self.stages = nn.Sequential(*stages)
        self.colours = nn.Conv2d(max(8, design.width // 2), 3, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """Return faces `(N, 3, size, size)` in 0..1 of codes `(N, bottleneck)`."""
        maps = F.leaky_relu(self.start(code), SLOPE).view(-1, self._channels, self._side, self._side)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return torch.sigmoid(self.colours(self.stages(maps)).float())


class Autoencoder(nn.Module):
    """Shared encoder with several decoders.

    Args:
        design: The architecture.
        decoders: Number of decoders; the last one is that of everybody.
    """

    def __init__(self, design: GeneratorDesign, decoders: int) -> None:
        super().__init__()
        self.design = design
        stages: list[nn.Module] = []
        channels = 3
        for factor in (1, 2, 4, 8):
            stages += [nn.Conv2d(channels, factor * design.width, 5, 2, 2), nn.LeakyReLU(SLOPE)]
            channels = factor * design.width
        side = design.size // 2**STAGES
        self.encoder = nn.Sequential(*stages, nn.Flatten(), nn.Linear(channels * side**2, design.bottleneck))
        self.decoders = nn.ModuleList(Decoder(design) for _ in range(decoders))

    def forward(self, faces: Tensor, decoder: int) -> Tensor:
        """Return faces drawn by a decoder.

        Args:
            faces: Aligned faces `(N, 3, size, size)` in 0..1.
            decoder: Number of the decoder.

        Returns:
            The same shape, float32 in 0..1.
        """
        # Each face is normalised, so that other light than in the fit does not change the drawn face.
        mean = faces.mean(dim=(2, 3), keepdim=True)
        contrast = faces.std(dim=(1, 2, 3), keepdim=True).clamp_min(MIN_CONTRAST)
        normalised = ((faces - mean) / contrast).contiguous(memory_format=torch.channels_last)
        return self.decoders[decoder](self.encoder(normalised))  # type: ignore[no-any-return]
