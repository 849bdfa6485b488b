"""Fit of a face-swap generator to the aligned faces of a few videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from train.face_swap.alignment import Image
from train.face_swap.autoencoder import Autoencoder
from train.face_swap.blending import face_mask
from train.face_swap.config import GeneratorDesign, SwapConfig

WARP_POINTS = 5
"""Points per side of the grid by which input faces are distorted."""
WARP, SHIFT, ROTATION, ZOOM = 0.04, 0.05, 0.07, 0.05
"""Spread of the distortion and largest shift in halves of the side, rotation in radians, change of scale."""
BACKGROUND = 0.15
"""Weight of the pixels outside the face."""
SSIM_WINDOW = 7
SHARED_STEPS = 0.5
"""Share of the steps in which only the decoder of everybody is fitted."""


def fit_generator(
    design: GeneratorDesign,
    faces: Sequence[NDArray[np.uint8]],
    sources: Sequence[int],
    config: SwapConfig,
    *,
    seed: int,
    progress: Callable[[float], None] = lambda loss: None,
) -> Autoencoder:
    """Fit an autoencoder with one decoder for each source and one for all videos.

    Args:
        design: The architecture.
        faces: Aligned faces of each video, RGB uint8 `(N, size, size, 3)`.
        sources: Numbers of the videos whose people get a decoder of their own.
        config: Number of steps, batch and learning rate.
        seed: Seed of the weights, of the batches and of the distortions.
        progress: Called after each step with its loss.

    Returns:
        The autoencoder, in evaluation mode.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = Autoencoder(design, len(sources) + 1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mask = torch.from_numpy(face_mask(design.size, 0.0, 1.15, 0.25))
    weight = BACKGROUND + (1 - BACKGROUND) * mask
    everybody = len(sources)
    # The decoder of everybody has been fitted already, and is kept in step with the encoder.
    order = [*range(everybody), *range(everybody), everybody]
    shared = round(config.steps * SHARED_STEPS)
    optimizer, schedule = _optimizer(model, config)
    for step in range(config.steps):
        if step == shared:
            # A source's decoder begins as everybody's: few videos are too little to learn to draw faces from.
            for decoder in model.decoders[:everybody]:
                decoder.load_state_dict(model.decoders[everybody].state_dict())
        number = everybody if step < shared else order[step % len(order)]
        videos = [sources[number]] if number < everybody else range(len(faces))
        inputs, targets = distorted(_batch(faces, videos, config.batch, random), design.size)
        # bfloat16 is several times as fast on CPUs with AMX, and accurate enough for such networks.
        with torch.autocast("cpu", torch.bfloat16):
            drawn = model(inputs, number)
        loss = image_loss(drawn, targets, weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(float(loss.detach()))
    return model.eval()


def _optimizer(
    model: Autoencoder, config: SwapConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(model.parameters(), config.lr, betas=(0.5, 0.99), fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, config.steps + 1, pct_start=0.05, final_div_factor=4.0
    )


@torch.inference_mode()
def draw(model: Autoencoder, face: Image, decoder: int) -> Image:
    """Return an aligned face as a decoder draws it, RGB uint8 `(size, size, 3)`."""
    with torch.autocast("cpu", torch.bfloat16):
        drawn = model(_tensor(face[None]), decoder)
    return np.asarray((drawn[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def image_loss(drawn: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Return absolute difference plus structural dissimilarity, weighted by pixel.

    Args:
        drawn: `(N, 3, size, size)` in 0..1.
        targets: The same shape.
        weight: `(size, size)`.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    weight = weight / weight.mean()
    absolute = ((drawn - targets).abs() * weight).mean()

    # In grey, and as two products with a band matrix: pooling takes as long as the whole network otherwise.
    first, second = (images.mean(1) for images in (drawn, targets))
    window = _moving_average(len(weight))
    pooled = window @ torch.stack([first, second, first**2, second**2, first * second], 1) @ window.T
    means = pooled[:, 0], pooled[:, 1]
    variances = pooled[:, 2] - means[0] ** 2, pooled[:, 3] - means[1] ** 2
    covariance = pooled[:, 4] - means[0] * means[1]
    similarity = (2 * means[0] * means[1] + 1e-4) * (2 * covariance + 9e-4)
    similarity = similarity / ((means[0] ** 2 + means[1] ** 2 + 1e-4) * (variances[0] + variances[1] + 9e-4))
    return absolute * 2 + ((1 - similarity) / 2 * weight).mean()


@cache
def _moving_average(size: int) -> Tensor:
    """Return the matrix that averages `SSIM_WINDOW` neighbours, float32 `(size, size)`."""
    steps = torch.arange(size)
    band = ((steps[:, None] - steps).abs() <= SSIM_WINDOW // 2).float()
    return band / band.sum(1, keepdim=True)


def distorted(faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a step: faces moved at random, the inputs distorted as well.

    The distortion keeps the encoder from copying shapes, which belong to the person.

    Args:
        faces: `(N, 3, size, size)`.
        size: Side in pixels.
    """
    count = len(faces)
    angle = ROTATION * (2 * torch.rand(count) - 1)
    zoom = 1 + ZOOM * (2 * torch.rand(count) - 1)
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    shift = SHIFT * (2 * torch.rand(count, 2) - 1)
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine, shift[:, 0]], 1),
            torch.stack([sine, cosine, shift[:, 1]], 1),
        ],
        1,
    )
    shape = [count, 3, size, size]
    grid = F.affine_grid(matrix, shape, align_corners=False)
    offsets = WARP * torch.randn(count, 2, WARP_POINTS, WARP_POINTS)
    warp = F.interpolate(offsets, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    inputs, targets = (
        F.grid_sample(faces, part, padding_mode="border", align_corners=False) for part in (grid + warp, grid)
    )
    gain = 1 + 0.1 * torch.randn(count, 1, 1, 1)
    return inputs * gain, targets


def _batch(
    faces: Sequence[NDArray[np.uint8]], videos: Sequence[int], count: int, random: np.random.Generator
) -> Tensor:
    # Each video is equally likely, however long it is.
    chosen = [faces[videos[i]] for i in random.integers(len(videos), size=count)]
    return _tensor(np.stack([own[random.integers(len(own))] for own in chosen]))


def _tensor(faces: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
