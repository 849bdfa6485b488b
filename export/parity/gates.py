"""The two gates that a bundle has to pass before it is written.

Gate A compares the engine with torch on the same stored weights: it detects wrong graphs and operators.
Gate B compares the stored weights with the trained ones: it detects rounding that changes verdicts.

As in `verdict_parity.py`, `p_fake` is that of the head alone, without the temporal classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import ParityFailed
from export.parity.face_clips import Clips
from export.parity.torch_detector import TorchDetector, torch_features, torch_logits
from export.parity.verdict_parity import MAX_FLIPPED, MAX_LOGIT_CHANGE, MAX_P_FAKE_CHANGE
from runtime.engines.interface import Engine
from runtime.model.calibration import Calibration
from runtime.pipeline.decision import FaceDecision
from runtime.pipeline.window import FaceWindow


@dataclass(frozen=True, kw_only=True)
class EngineParity:
    """Result of gate A: the largest |Δlogit| of the engine against torch.

    Args:
        clip: With all crops of a window in one call.
        buffered: With one crop at a time through the rolling buffer.
        windows: Number of windows compared on the buffered path.
        allowed: Limit for both.
    """

    clip: float
    buffered: float
    windows: int
    allowed: float = MAX_LOGIT_CHANGE

    def check(self) -> None:
        """Check the differences against the limit.

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
                    "this is a defect in the exported graph, not in your model; please report it",
                )


@dataclass(frozen=True, kw_only=True)
class RoundingParity:
    """Result of gate B: the stored weights against the trained ones.

    Args:
        p_fake_max: Largest |Δp_fake|, noise included.
        p_fake_mean: Mean |Δp_fake|.
        logit_max: Largest |Δlogit|.
        logit_mean: Mean |Δlogit|.
        flipped: Share of the windows of faces whose `p_fake` crossed 0.5.
        states: Share of them whose state (real, uncertain, fake) changed, without hysteresis.
        windows: Number of windows compared.
        faces: Number of these that show faces.
        p_fake_allowed: Limit of `p_fake_max`.
        flipped_allowed: Limit of `flipped`.
    """

    p_fake_max: float
    p_fake_mean: float
    logit_max: float
    logit_mean: float
    flipped: float
    states: float
    windows: int
    faces: int
    p_fake_allowed: float = MAX_P_FAKE_CHANGE
    flipped_allowed: float = MAX_FLIPPED

    def check(self, advice: str) -> None:
        """Check the differences against the limits.

        Args:
            advice: What to try if the gate fails, for the error message.

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


def engine_parity(
    detector: TorchDetector, engine: Engine, clip_groups: Sequence[Clips], *, min_frames: int
) -> EngineParity:
    """Measure gate A on whole clips, and on every window of a rolling buffer with all clips of a group.

    Args:
        detector: Torch with the stored weights.
        engine: Open engine with the same weights.
        clip_groups: Groups of clips, each uint8 RGB `(K, window, H, W, 3)`.
        min_frames: Length of the shortest window.

    Returns:
        The differences.
    """
    clip_max, buffered_max, windows = 0.0, 0.0, 0
    for clips in clip_groups:
        features = torch_features(detector, clips)
        engine_features = np.stack([engine.features(clip) for clip in clips])
        clip_max = _max_change(clip_max, engine.logits(engine_features) - torch_logits(detector, features))
        # One buffer for the group, so that it rolls over from one clip into the next.
        sequence = features.reshape(1, -1, features.shape[-1])
        buffer = FaceWindow(clips.shape[1], features.shape[-1])
        for i, crop in enumerate(clips.reshape(-1, *clips.shape[2:])):
            buffer.push(float(i), crop, engine.features(crop[None])[0])
            if len(buffer) >= min_frames:
                expected = torch_logits(detector, sequence[:, i + 1 - len(buffer) : i + 1])
                change = engine.logits(buffer.window_features()[None]) - expected
                buffered_max = _max_change(buffered_max, change)
                windows += 1
    return EngineParity(clip=clip_max, buffered=buffered_max, windows=windows)


def rounding_parity(
    trained: TorchDetector,
    stored: TorchDetector,
    noise: Clips,
    faces: Sequence[Clips],
    *,
    calibration: Calibration,
    min_frames: int,
) -> RoundingParity:
    """Measure gate B on every window of at least `min_frames` that starts a clip.

    Args:
        trained: Torch with the trained weights.
        stored: Torch with the stored weights.
        noise: Clips of noise, uint8 RGB `(K, window, H, W, 3)`; excluded from flips and states.
        faces: Groups of clips of faces, in the same form.
        calibration: Calibration from logit to `p_fake`.
        min_frames: Length of the shortest window.

    Returns:
        The differences.
    """
    before, after, of_face = [], [], []
    for group_index, group in enumerate([noise, *faces]):
        features = torch_features(trained, group), torch_features(stored, group)
        for length in range(min_frames, group.shape[1] + 1):
            before.append(torch_logits(trained, features[0][:, :length]))
            after.append(torch_logits(stored, features[1][:, :length]))
            of_face.append(np.full(len(group), group_index > 0))
    logits = np.concatenate(before), np.concatenate(after)
    face = np.concatenate(of_face)
    p_fake = [np.array([calibration.p_fake(float(logit)) for logit in part]) for part in logits]
    change, logit_change = np.abs(p_fake[1] - p_fake[0]), np.abs(logits[1] - logits[0])
    states = [np.array([_state(calibration, float(logit)) for logit in part[face]]) for part in logits]
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


def _max_change(largest: float, difference: NDArray[np.float32]) -> float:
    # Python's `max` may drop a NaN; as infinity it fails the gate.
    if not np.isfinite(difference).all():
        return np.inf
    return float(np.fmax.reduce(np.abs(difference), initial=largest))


def _share(changed: NDArray[np.bool_], face: NDArray[np.bool_]) -> float:
    return float(changed[face].mean()) if face.any() else 0.0


def _state(calibration: Calibration, logit: float) -> str:
    decision = FaceDecision(calibration, min_fill=0.0, expiry_s=1.0)
    return decision.update(calibration.p_fake(logit), 1.0, 0.0)
