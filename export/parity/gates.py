"""The gates between training and deployment: what a bundle answers is what the trained model answers.

Gate A holds the engine to torch with the same stored weights: it finds a wrong graph, operator or buffer.
Gate B holds the stored weights to the trained ones: it finds rounding that changes verdicts.

All of it is about the network: `p_fake` is here what it says alone. Flicker is added outside of the engines.

`VerdictParity` holds any engine in any precision to torch, on a finished bundle: `unmask export --check`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.errors import ParityFailed
from export.parity.face_clips import Clips
from runtime.engines.interface import Engine
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest
from runtime.pipeline.decision import FaceDecision
from runtime.pipeline.window import FaceWindow

ENGINE_LOGIT = 1e-3
ROUNDING_P_FAKE = 0.01
ROUNDING_FLIPPED = 0.005

# Crops that go through torch at once; more only takes memory.
_BATCH = 16


@dataclass(frozen=True)
class TorchDetector:
    """Holds the two halves of a detector in torch, in evaluation mode.

    Args:
        backbone: uint8 RGB crops `(N, H, W, 3)` -> float32 features `(N, D)`.
        head: float32 features `(N, T, D)` -> logits `(N,)`.
    """

    backbone: nn.Module
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class EngineParity:
    """Holds what gate A measured: the largest |Δlogit| of the engine against torch.

    Args:
        clip: All crops of a window at once.
        buffered: Crop by crop through the rolling buffer.
        windows: How many windows were compared on either path.
        allowed: The most that passes.
    """

    clip: float
    buffered: float
    windows: int
    allowed: float = ENGINE_LOGIT

    def check(self) -> None:
        """Pass or raise.

        Raises:
            ParityFailed: A difference is too large, or not a number.
        """
        for path, measured in (("clip", self.clip), ("buffered", self.buffered)):
            if not measured <= self.allowed:
                raise ParityFailed(
                    "A",
                    f"the engine's largest logit difference on the {path} path",
                    measured,
                    self.allowed,
                    "this is a defect in the exported graph, not in your model: please report it",
                )


@dataclass(frozen=True, kw_only=True)
class RoundingParity:
    """Holds what gate B measured: the stored weights against the trained ones.

    Args:
        p_fake_max: Largest |Δp_fake|, noise included.
        p_fake_mean: Mean |Δp_fake|.
        logit_max: Largest |Δlogit|.
        logit_mean: Mean |Δlogit|.
        flipped: Share of the windows of faces whose `p_fake` changed sides of 0.5.
        states: Share of them whose state (real, uncertain, fake) changed, without hysteresis.
        windows: How many windows were compared.
        faces: How many of these are of faces.
        p_fake_allowed: The largest |Δp_fake| that passes.
        flipped_allowed: The largest share of flipped verdicts that passes.
    """

    p_fake_max: float
    p_fake_mean: float
    logit_max: float
    logit_mean: float
    flipped: float
    states: float
    windows: int
    faces: int
    p_fake_allowed: float = ROUNDING_P_FAKE
    flipped_allowed: float = ROUNDING_FLIPPED

    def check(self, advice: str) -> None:
        """Pass or raise.

        Args:
            advice: What to try if it does not pass.

        Raises:
            ParityFailed: A difference is too large, or not a number.
        """
        if not self.p_fake_max <= self.p_fake_allowed:
            raise ParityFailed(
                "B", "the largest change of p_fake by rounding", self.p_fake_max, self.p_fake_allowed, advice
            )
        if not self.flipped <= self.flipped_allowed:
            raise ParityFailed(
                "B", "the share of verdicts flipped by rounding", self.flipped, self.flipped_allowed, advice
            )


@dataclass(frozen=True, kw_only=True)
class VerdictParity:
    """Holds how far one engine's verdicts are from torch's.

    Args:
        logit_max: Largest |Δlogit|.
        logit_mean: Mean |Δlogit|.
        p_fake_max: Largest |Δp_fake|.
        p_fake_mean: Mean |Δp_fake|.
        flips: Verdicts whose `p_fake` changed sides of 0.5.
        windows: How many verdicts were compared.
        crops: How many crops they are of.
        allowed: What passes, by the name of the figure; what is not named is not held to anything.
    """

    logit_max: float
    logit_mean: float
    p_fake_max: float
    p_fake_mean: float
    flips: int
    windows: int
    crops: int
    allowed: Mapping[str, float]

    @property
    def flipped(self) -> float:
        """The share of verdicts that flipped."""
        return self.flips / self.windows

    @property
    def failures(self) -> list[str]:
        """The figures that do not pass, or are not numbers."""
        return [name for name, allowed in self.allowed.items() if not getattr(self, name) <= allowed]


def allowed_figures(
    manifest: Manifest, precision: str, *, trained: bool, portrait: bool = False
) -> dict[str, float]:
    """Say what an engine is held to: the figures in the manifest, or those of this version.

    Args:
        manifest: The model's.
        precision: What the engine computes in: `fp32`, or less.
        trained: Whether torch has the trained weights, not the stored ones that the engine has.
        portrait: Whether the crops are of one face alone, whose verdicts all turn at once if it lies at 0.5.

    Returns:
        Limits, as `VerdictParity` takes them. Equal weights in float32 must give the same logits. Rounded
        weights may move `p_fake`, and lower precision may move it by so much in the mean; no engine may flip
        more than so many verdicts, but that lower precision is not judged by those of a portrait.
    """
    gates = {gate: manifest.parity.get(gate, {}) for gate in ("gate_a", "gate_b")}
    logit = gates["gate_a"].get("allowed", ENGINE_LOGIT)
    p_fake = gates["gate_b"].get("p_fake_allowed", ROUNDING_P_FAKE)
    flipped = {"flipped": float(gates["gate_b"].get("flipped_allowed", ROUNDING_FLIPPED))}
    if precision != "fp32":
        return {"p_fake_mean": float(p_fake), **({} if portrait else flipped)}
    return {"p_fake_max": float(p_fake), **flipped} if trained else {"logit_max": float(logit), **flipped}


def verdict_parity(
    expected: NDArray[np.float32],
    given: NDArray[np.float32],
    *,
    calibration: Calibration,
    crops: int,
    allowed: Mapping[str, float],
) -> VerdictParity:
    """Compare an engine's logits with torch's.

    Args:
        expected: Of torch, `(N,)`.
        given: Of the engine, `(N,)`.
        calibration: From logit to `p_fake`.
        crops: How many crops the windows are of.
        allowed: As `allowed_figures` gives it.

    Returns:
        The figures.
    """
    change = np.abs(given.astype(np.float64) - expected)
    p_fake = [
        # No score is in what is not a number, and no figure made of it passes.
        np.array([calibration.p_fake(z) if math.isfinite(z) else math.nan for z in each.tolist()])
        for each in (expected, given)
    ]
    p_change = np.abs(p_fake[1] - p_fake[0])
    return VerdictParity(
        logit_max=float(change.max()),
        logit_mean=float(change.mean()),
        p_fake_max=float(p_change.max()),
        p_fake_mean=float(p_change.mean()),
        flips=int(((p_fake[0] >= 0.5) != (p_fake[1] >= 0.5)).sum()),
        windows=len(expected),
        crops=crops,
        allowed=allowed,
    )


def engine_parity(
    model: TorchDetector,
    engine: Engine,
    clips: Sequence[Clips],
    *,
    min_frames: int,
) -> EngineParity:
    """Measure gate A.

    Args:
        model: Torch with the stored weights.
        engine: Open, on the graphs with the stored weights.
        clips: Groups of clips uint8 RGB `(K, window, H, W, 3)`.
        min_frames: The shortest window to compare.

    Returns:
        The figures.
    """
    clip_worst, buffered_worst, windows = 0.0, 0.0, 0
    for group in clips:
        length = group.shape[1]
        features = torch_features(model, group)
        expected = _logits(model, features)
        seen = np.stack([engine.features(clip) for clip in group])
        clip_worst = _worse(clip_worst, engine.logits(seen) - expected)
        # The clips of a group in one go: the buffer rolls over from one into the next.
        run = features.reshape(1, -1, features.shape[-1])
        buffer = FaceWindow(length, features.shape[-1])
        for i, crop in enumerate(group.reshape(-1, *group.shape[2:])):
            buffer.push(float(i), crop, engine.features(crop[None])[0])
            if len(buffer) >= min_frames:
                logit = engine.logits(buffer.window_features()[None])
                start = i + 1 - len(buffer)
                buffered_worst = _worse(buffered_worst, logit - _logits(model, run[:, start : i + 1]))
                windows += 1
    return EngineParity(clip=clip_worst, buffered=buffered_worst, windows=windows)


def rounding_parity(
    trained: TorchDetector,
    stored: TorchDetector,
    noise: Clips,
    faces: Sequence[Clips],
    *,
    calibration: Calibration,
    min_frames: int,
) -> RoundingParity:
    """Measure gate B on every window from `min_frames` up that begins a clip.

    Args:
        trained: Torch with the trained weights.
        stored: Torch with the stored weights.
        noise: Clips of noise, uint8 RGB `(K, window, H, W, 3)`; they count for the differences only.
        faces: Groups of clips of faces, likewise.
        calibration: From logit to `p_fake`.
        min_frames: The shortest window to compare.

    Returns:
        The figures.
    """
    before, after, of_face = [], [], []
    for number, group in enumerate([noise, *faces]):
        features = torch_features(trained, group), torch_features(stored, group)
        for length in range(min_frames, group.shape[1] + 1):
            before.append(_logits(trained, features[0][:, :length]))
            after.append(_logits(stored, features[1][:, :length]))
            of_face.append(np.full(len(group), number > 0))
    logits = np.concatenate(before), np.concatenate(after)
    face = np.concatenate(of_face)
    p_fake = [np.array([calibration.p_fake(float(logit)) for logit in each]) for each in logits]
    change, logit_change = np.abs(p_fake[1] - p_fake[0]), np.abs(logits[1] - logits[0])
    states = [np.array([_state(calibration, float(logit)) for logit in each[face]]) for each in logits]
    return RoundingParity(
        p_fake_max=float(change.max()),
        p_fake_mean=float(change.mean()),
        logit_max=float(logit_change.max()),
        logit_mean=float(logit_change.mean()),
        flipped=_share((p_fake[0] >= 0.5) != (p_fake[1] >= 0.5), face),
        states=float((states[0] != states[1]).mean()) if face.any() else 0.0,
        windows=len(face),
        faces=int(face.sum()),
    )


def torch_features(model: TorchDetector, clips: Clips) -> NDArray[np.float32]:
    """Run a torch backbone over clips.

    Args:
        model: In evaluation mode.
        clips: uint8 RGB `(K, T, H, W, 3)`.

    Returns:
        float32 `(K, T, D)`.
    """
    crops = torch.from_numpy(clips.reshape(-1, *clips.shape[2:]))
    with torch.inference_mode():
        features = torch.cat([model.backbone(batch) for batch in torch.split(crops, _BATCH)])
    return features.numpy().reshape(*clips.shape[:2], features.shape[1])


def torch_window_logits(
    model: TorchDetector, features: NDArray[np.float32], min_frames: int
) -> NDArray[np.float32]:
    """Judge every window that begins a clip, in the order of `runtime.engines.recorded_outputs.window_logits`.

    Args:
        model: In evaluation mode.
        features: float32 `(K, T, D)`.
        min_frames: The shortest window.

    Returns:
        float32 `(K * (T - min_frames + 1),)`.
    """
    return np.concatenate(
        [_logits(model, features[:, :length]) for length in range(min_frames, features.shape[1] + 1)]
    )


def report(parity: EngineParity | RoundingParity | VerdictParity) -> Mapping[str, Any]:
    """Give the figures as JSON values, for the manifest."""
    return {key: _short(value) for key, value in asdict(parity).items()}


def _logits(model: TorchDetector, features: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: torch.Tensor = model.head(torch.from_numpy(np.ascontiguousarray(features)))
    return logits.numpy()


def _worse(worst: float, difference: NDArray[np.float32]) -> float:
    # NaN must win: `max` of Python would drop it.
    return (
        float(np.fmax.reduce(np.abs(difference), initial=worst)) if np.isfinite(difference).all() else np.inf
    )


def _share(changed: NDArray[np.bool_], face: NDArray[np.bool_]) -> float:
    return float(changed[face].mean()) if face.any() else 0.0


def _state(calibration: Calibration, logit: float) -> str:
    decision = FaceDecision(calibration, min_fill=0.0, expiry_s=1.0)
    return decision.update(calibration.p_fake(logit), 1.0, 0.0)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
