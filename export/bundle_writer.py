"""Writer of model bundles: fold and round a trained detector, export it, check both gates, install it."""

from __future__ import annotations

import copy
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.errors import OutputOccupied
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from export.onnx_graph.rounding import CALIBRATION_PIXELS, round_weights
from export.onnx_graph.stored_weight import StoredWeight
from export.parity.face_clips import Clips, noise_clips, portrait_clips, read_clips, read_residuals
from export.parity.gates import EngineParity, RoundingParity, engine_parity, rounding_parity
from export.parity.torch_detector import TorchDetector, torch_features, torch_window_logits
from export.parity.verdict_parity import allowed_figures, parity_figures, temporal_logits, verdict_parity
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.int8 import add_activation_ranges, int8_is_exact
from runtime.engines.recorded_outputs import record_outputs
from runtime.model.bundle import Bundle, load_bundle, write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import BACKBONE_FILE, HEAD_FILE, MANIFEST_FILE, Manifest, Weights
from runtime.model.temporal_classifier import TEMPORAL_FILE
from streams.text import printable
from train.models.checkpoint import load_checkpoint

# Maximum number of the user's clips: every other one for the rounding, the rest for the gates.
MAX_CLIPS = 192
NOISE_CLIPS = 4
PORTRAIT_CLIPS = 8
# Clips of each group for gate A, which runs each crop three times; a few clips reveal a wrong graph.
ENGINE_CLIPS = 8
# Frames per clip for the rounding: frames of a clip are alike, so a few frames of many clips fit better.
FRAMES_TO_FIT = 4

ReportStep = Callable[[str], None]


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    weights: Weights = "int8",
    crops: Path | None = None,
    name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    step: ReportStep = lambda text: None,
) -> Bundle:
    """Write a checkpoint as a bundle, if it passes both gates.

    Args:
        checkpoint: Directory that `train.fitting.run.fit` wrote.
        out: Directory to write.
        weights: Stored type of the weights.
        crops: Face crops for the rounding and the gates, for `read_clips`.
        name: Name of the model; None for that of the checkpoint.
        metrics: Results on held-out data, for the manifest.
        step: Called with a description of each step.

    Returns:
        The bundle, loaded from `out`.

    Raises:
        CheckpointError: The checkpoint, its calibration or its temporal classifier cannot be read.
        UnmaskError: See `write_bundle`.
    """
    trained = load_checkpoint(checkpoint)
    model, config = trained.model, trained.model.config
    manifest = Manifest(
        name=name or printable(checkpoint.resolve().name),
        input_size=config.input_size,
        crop_margin=config.crop_margin,
        sample_hz=config.sample_hz,
        window=config.window,
        min_frames=config.min_frames,
        feature_every=config.feature_every,
        calibration=trained.calibration or Calibration(),
        weights=weights,
        training=trained.training,
        metrics=metrics or {},
        temporal=trained.temporal,
    )
    return write_bundle(TorchDetector(model.backbone, model.head), manifest, out, crops=crops, step=step)


def write_bundle(
    detector: TorchDetector,
    manifest: Manifest,
    out: Path,
    *,
    crops: Path | None = None,
    step: ReportStep = lambda text: None,
) -> Bundle:
    """Write a trained detector as a bundle, if it passes both gates.

    Args:
        detector: The trained detector; it is not changed.
        manifest: Manifest of the bundle; `weights` is the stored type, `parity` is filled in.
        out: Directory to write; an existing bundle is replaced, other files in it stay.
        crops: Face crops for `read_clips`: half for the rounding, half for the gates. With None, the
            gates run on noise and a portrait, and weights are rounded to the nearest step.
        step: Called with a description of each step.

    Returns:
        The bundle, loaded from `out`.

    Raises:
        OutputOccupied: `out` holds something other than a bundle.
        CropsUnreadable: `crops` cannot be read.
        GraphUnsupported: The detector has layers that cannot be exported.
        WeightsUnusable: A weight cannot be stored.
        ParityFailed: A gate failed; nothing was written.
    """
    if out.exists() and not (out / MANIFEST_FILE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputOccupied(out)
    clips = _clip_sets(manifest, crops, step)
    step(f"rounding weights to {manifest.weights}")
    stored = TorchDetector(
        fold_for_inference(detector.backbone, torch.from_numpy(clips.portrait[0, :2])),
        copy.deepcopy(detector.head).eval().requires_grad_(False),
    )
    fitting = None if clips.fitting is None else _subset_to_fit(clips.fitting)
    weights = round_weights(stored.backbone, stored.head, manifest.weights, fitting)
    step("gate B: stored against trained weights")
    rounding = rounding_parity(
        detector,
        stored,
        clips.noise,
        clips.faces,
        calibration=manifest.calibration,
        min_frames=manifest.min_frames,
    )
    rounding.check(_advice(manifest, fitted=clips.fitting is not None))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        draft = Path(scratch) / out.name
        draft.mkdir()
        step("exporting the graphs")
        onnx.save(backbone_graph(stored.backbone, manifest.input_size, weights), draft / BACKBONE_FILE)
        onnx.save(head_graph(stored.head, manifest.feature_dim, weights), draft / HEAD_FILE)
        write_manifest(draft, manifest)
        step("gate A: engine against torch")
        engine, parity = _gate_a(draft, stored, clips)
        parity.check()
        figures = _parity_section(engine, parity, rounding, clips, weights)
        write_manifest(draft, msgspec.structs.replace(manifest, parity=figures))
        if clips.fitting is not None and int8_is_exact():
            step("int8 arithmetic against float32")
            # Only on the user's faces, as in `--check`: the verdicts of a portrait all flip together.
            figures["int8"] = _calibrate_int8(draft, stored, clips)
            write_manifest(draft, msgspec.structs.replace(manifest, parity=figures))
        _install(draft, out)
    return load_bundle(out)


@dataclass(frozen=True, kw_only=True)
class _ClipSets:
    """Clips for the rounding and the gates; `fitting` and `held_out` are the user's own."""

    noise: Clips
    portrait: Clips
    fitting: Clips | None
    held_out: Clips | None
    residuals: NDArray[np.float32] | None = None
    """Temporal residuals of `held_out`, if it has some."""

    @property
    def faces(self) -> list[Clips]:
        return [self.portrait] if self.held_out is None else [self.portrait, self.held_out]


def _clip_sets(manifest: Manifest, crops: Path | None, step: ReportStep) -> _ClipSets:
    size, window = manifest.input_size, manifest.window
    rng = np.random.default_rng(0)
    noise = noise_clips(NOISE_CLIPS, window, size, rng)
    portrait = portrait_clips(PORTRAIT_CLIPS, window, size, manifest.crop_margin, rng)
    if crops is None:
        return _ClipSets(noise=noise, portrait=portrait, fitting=None, held_out=None)
    step("reading crops")
    own = read_clips(crops, window, size, MAX_CLIPS)
    # A single clip is used for both.
    held_out = slice(1, None, 2) if len(own) > 1 else slice(None)
    residuals = read_residuals(crops, window, MAX_CLIPS)
    return _ClipSets(
        noise=noise,
        portrait=portrait,
        fitting=own[::2],
        held_out=own[held_out],
        residuals=None if residuals is None else residuals[held_out],
    )


def _gate_a(draft: Path, stored: TorchDetector, clips: _ClipSets) -> tuple[str, EngineParity]:
    """Measure gate A on a draft; return the description of the engine and the result."""
    bundle = load_bundle(draft)
    groups = [group[:ENGINE_CLIPS] for group in (clips.noise, *clips.faces)]
    with OnnxRuntimeEngine(bundle, precision="fp32") as engine:
        return engine.describe(), engine_parity(stored, engine, groups, min_frames=bundle.min_frames)


def _parity_section(
    engine: str,
    parity: EngineParity,
    rounding: RoundingParity,
    clips: _ClipSets,
    weights: Mapping[str, StoredWeight],
) -> dict[str, Any]:
    """Return the `parity` section of the manifest."""
    return {
        "gate_a": {"engine": engine, **parity_figures(parity)},
        "gate_b": parity_figures(rounding),
        "clips": {
            "noise": len(clips.noise),
            "portrait": len(clips.portrait),
            "crops": 0 if clips.held_out is None else len(clips.held_out),
            "fitted": 0 if clips.fitting is None else len(clips.fitting),
        },
        "parameters": _parameters(weights),
        "made_with": {
            # A plain string: msgspec does not encode the subclass that torch gives.
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "machine": platform.machine(),
        },
    }


def _calibrate_int8(draft: Path, stored: TorchDetector, clips: _ClipSets) -> dict[str, Any]:
    """Write int8 ranges into a draft's backbone, and keep them if verdicts stay within the limits."""
    assert clips.fitting is not None
    fitting, held_out = clips.fitting, clips.faces[-1]
    bundle = load_bundle(draft)
    plain = bundle.backbone.read_bytes()
    crops = _subset_to_fit(fitting).flatten(0, 1).numpy()
    bundle.backbone.write_bytes(add_activation_ranges(plain, crops))
    write_manifest(draft, bundle)
    min_frames = bundle.min_frames
    with OnnxRuntimeEngine(load_bundle(draft), precision="int8") as engine:
        outputs = record_outputs(
            engine, held_out, precision="int8", digest=bundle.digest, min_frames=min_frames
        )
    parity = verdict_parity(
        torch_window_logits(stored, torch_features(stored, held_out), min_frames),
        outputs.logits,
        calibration=bundle.calibration,
        crops=held_out.shape[0] * held_out.shape[1],
        allowed=allowed_figures(bundle, "int8", trained=False),
        temporal=temporal_logits(bundle, clips.residuals),
    )
    if parity.failures:
        bundle.backbone.write_bytes(plain)
    return {**parity_figures(parity), "flipped": parity.flipped, "used": not parity.failures}


def _subset_to_fit(clips: Clips) -> torch.Tensor:
    """Return a few frames of clips that are spread over all of them, at most `CALIBRATION_PIXELS`."""
    frames = min(FRAMES_TO_FIT, clips.shape[1])
    chosen = np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)
    count = max(1, CALIBRATION_PIXELS // (frames * clips.shape[2] * clips.shape[3]))
    spread = np.unique(np.linspace(0, len(clips) - 1, count).round().astype(int))
    return torch.from_numpy(np.ascontiguousarray(clips[spread][:, chosen]))


def _parameters(weights: Mapping[str, StoredWeight]) -> dict[str, int]:
    """Count the parameters of the stored weights by their type."""
    counts = Counter[str]()
    for weight in weights.values():
        counts[weight.values.dtype.name] += weight.values.size
    return dict(counts)


def _advice(manifest: Manifest, *, fitted: bool) -> str:
    if manifest.weights == "float32":
        return "this is a defect in the export, not in your model; please report it"
    if manifest.weights == "float16":
        return "use --weights float32"
    if not fitted:
        return "give face crops with --crops for a finer rounding, or use --weights float16 (twice the size)"
    return "use --weights float16 (twice the size)"


def _install(draft: Path, out: Path) -> None:
    """Move the finished files into place; the manifest last, as it validates the others."""
    draft.chmod(0o755)
    if not out.exists():
        os.replace(draft, out)
        return
    # An old temporal classifier must not stay in the directory of a model that has none.
    (out / TEMPORAL_FILE).unlink(missing_ok=True)
    for file in sorted(draft.iterdir(), key=lambda file: file.name == MANIFEST_FILE):
        shutil.move(file, out / file.name)
