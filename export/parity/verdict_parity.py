"""Comparison of the verdicts of any engine, in any precision, with those of torch.

The temporal classifier's logit is added outside of the engines. Where the clips contain temporal residuals,
it is added to both sides, so that `p_fake` is that of a verdict; else `p_fake` is the head's alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_LOGIT_CHANGE = 1e-3
MAX_P_FAKE_CHANGE = 0.01
MAX_FLIPPED = 0.005


@dataclass(frozen=True, kw_only=True)
class VerdictParity:
    """Differences between the verdicts of one engine and those of torch.

    Args:
        logit_max: Largest |Δlogit|.
        logit_mean: Mean |Δlogit|.
        p_fake_max: Largest |Δp_fake|.
        p_fake_mean: Mean |Δp_fake|.
        flips: Number of verdicts whose `p_fake` crossed 0.5.
        windows: Number of verdicts compared.
        crops: Number of crops in them.
        allowed: Limits by the name of the figure; a figure without a limit always passes.
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
        """Share of the verdicts that flipped, 0..1."""
        return self.flips / self.windows

    @property
    def failures(self) -> list[str]:
        """Names of the figures that are above their limits or not a number."""
        return [name for name, allowed in self.allowed.items() if not getattr(self, name) <= allowed]


def allowed_figures(
    manifest: Manifest, precision: str, *, trained: bool, portrait: bool = False
) -> dict[str, float]:
    """Return the limits for an engine: those in the manifest, or else those of this version.

    In float32 with equal weights, the largest change of the logit is limited; in float32 against the trained
    weights, the largest change of `p_fake`; in lower precision, the mean change of `p_fake`. The share of
    flipped verdicts is limited too, except in lower precision on a portrait.

    Args:
        manifest: The model's manifest.
        precision: Precision of the engine: `fp32` or lower.
        trained: Whether torch has the trained weights instead of the stored ones that the engine has.
        portrait: Whether all crops show one face, whose verdicts may all flip together.

    Returns:
        Limits for `VerdictParity.allowed`.
    """
    gates = {gate: manifest.parity.get(gate, {}) for gate in ("gate_a", "gate_b")}
    logit = gates["gate_a"].get("allowed", MAX_LOGIT_CHANGE)
    p_fake = gates["gate_b"].get("p_fake_allowed", MAX_P_FAKE_CHANGE)
    flipped = {"flipped": float(gates["gate_b"].get("flipped_allowed", MAX_FLIPPED))}
    if precision != "fp32":
        return {"p_fake_mean": float(p_fake), **({} if portrait else flipped)}
    return {"p_fake_max": float(p_fake), **flipped} if trained else {"logit_max": float(logit), **flipped}


def verdict_parity(
    expected: NDArray[np.float32],
    actual: NDArray[np.float32],
    *,
    calibration: Calibration,
    crops: int,
    allowed: Mapping[str, float],
    temporal: NDArray[np.float32] | None = None,
) -> VerdictParity:
    """Compare the logits of an engine with those of torch.

    Args:
        expected: Logits of torch, float32 `(M,)`.
        actual: Logits of the engine for the same windows.
        calibration: Calibration from logit to `p_fake`.
        crops: Number of crops in the windows.
        allowed: Limits, from `allowed_figures`.
        temporal: Logits of the temporal classifier for the same windows; None if the model has none.

    Returns:
        The differences.
    """
    change = np.abs(actual.astype(np.float64) - expected)
    p_fake = [
        # A logit that is not finite becomes NaN, which fails every limit.
        np.array([calibration.p_fake(z) if math.isfinite(z) else math.nan for z in logits.tolist()])
        for logits in ((expected, actual) if temporal is None else (expected + temporal, actual + temporal))
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


def temporal_logits(manifest: Manifest, residuals: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Score the windows at the start of each clip, in the order of `recorded_outputs.window_logits`.

    Args:
        manifest: Manifest of the model.
        residuals: Temporal residuals of the clips, float32 `(K, T, NUM_RESIDUALS)`.

    Returns:
        float32 `(K * (T - min_frames + 1),)`; None without residuals or without a temporal classifier.
    """
    if manifest.temporal is None or residuals is None:
        return None
    lengths = range(manifest.min_frames, residuals.shape[1] + 1)
    return np.concatenate([manifest.temporal.logits(residuals[:, :length]) for length in lengths])


def parity_figures(parity: DataclassInstance) -> dict[str, Any]:
    """Return the fields of a parity result as JSON values of three digits, for the manifest."""
    return {key: _rounded(value) for key, value in asdict(parity).items()}


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
