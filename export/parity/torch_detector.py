"""The two networks of a detector in torch, and their outputs on clips: the reference for every engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.parity.face_clips import Clips

# Crops per call; more only takes memory.
_BATCH = 16


@dataclass(frozen=True)
class TorchDetector:
    """Backbone and head of a detector in torch, in evaluation mode.

    Args:
        backbone: uint8 RGB crops `(N, H, W, 3)` -> float32 features `(N, D)`.
        head: float32 features `(N, T, D)` -> logits `(N,)`.
    """

    backbone: nn.Module
    head: nn.Module


def torch_features(detector: TorchDetector, clips: Clips) -> NDArray[np.float32]:
    """Compute the features of clips.

    Args:
        detector: The reference.
        clips: uint8 RGB `(K, T, H, W, 3)`.

    Returns:
        float32 `(K, T, D)`.
    """
    crops = torch.from_numpy(clips.reshape(-1, *clips.shape[2:]))
    with torch.inference_mode():
        features = torch.cat([detector.backbone(batch) for batch in torch.split(crops, _BATCH)])
    array: NDArray[np.float32] = features.numpy().reshape(*clips.shape[:2], features.shape[1])
    return array


def torch_logits(detector: TorchDetector, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the logits of windows.

    Args:
        detector: The reference.
        features: float32 `(N, T, D)`.

    Returns:
        float32 `(N,)`.
    """
    with torch.inference_mode():
        logits: torch.Tensor = detector.head(torch.from_numpy(np.ascontiguousarray(features)))
    return logits.numpy()


def torch_window_logits(
    detector: TorchDetector, features: NDArray[np.float32], min_frames: int
) -> NDArray[np.float32]:
    """Score every window that starts a clip, ordered as `runtime.engines.recorded_outputs.window_logits`.

    Args:
        detector: The reference.
        features: float32 `(K, T, D)`.
        min_frames: Length of the shortest window.

    Returns:
        float32 `(K * (T - min_frames + 1),)`.
    """
    lengths = range(min_frames, features.shape[1] + 1)
    return np.concatenate([torch_logits(detector, features[:, :length]) for length in lengths])
