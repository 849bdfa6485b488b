"""Makes a bundle out of a trained detector: fold, round, export, prove, and only then put it in place."""

from __future__ import annotations

import copy
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch

from export.errors import OutputOccupied
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from export.onnx_graph.rounding import CALIBRATION_PIXELS, StoredWeight, round_weights
from export.parity.face_clips import Clips, noise_clips, portrait_clips, read_clips
from export.parity.gates import (
    TorchDetector,
    allowed_figures,
    engine_parity,
    report,
    rounding_parity,
    torch_features,
    torch_window_logits,
    verdict_parity,
)
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.int8 import add_activation_ranges, int8_is_exact
from runtime.engines.recorded_outputs import record_outputs
from runtime.model.bundle import Bundle, load_bundle, write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import BACKBONE_FILE, HEAD_FILE, MANIFEST_FILE, Manifest, Weights
from runtime.model.temporal_classifier import TEMPORAL_FILE
from train.models.checkpoint import load_checkpoint

# Of the user's clips, every other one goes to the rounding, the rest to the gates.
MAX_CLIPS = 192
NOISE_CLIPS = 4
PORTRAIT_CLIPS = 8
# Gate A runs each crop three times; what it finds, it finds in few.
ENGINE_CLIPS = 8
# Frames of one clip are alike: a few of many clips show the rounding more than all of a few.
FRAMES_TO_FIT = 4

Step = Callable[[str], None]


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    weights: Weights = "int8",
    crops: Path | None = None,
    name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    step: Step = lambda what: None,
) -> Bundle:
    """Write a checkpoint as a bundle, if it passes both gates.

    Args:
        checkpoint: The directory that `train.fitting.run.fit` wrote.
        out: The directory to write.
        weights: How to store the weights.
        crops: Face crops to fit the rounding and for the gates, as `read_clips` takes them.
        name: What the model calls itself; the checkpoint's name when None.
        metrics: How it measured on held-out data, for the manifest.
        step: Is told what is being done.

    Returns:
        The bundle as loaded from `out`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        UnmaskError: As `write_bundle` says.
    """
    trained = load_checkpoint(checkpoint)
    model, config = trained.model, trained.model.config
    manifest = Manifest(
        name=name or checkpoint.resolve().name,
        input_size=config.input_size,
        crop_margin=config.crop_margin,
        sample_hz=config.sample_hz,
        window=config.window,
        min_frames=config.min_frames,
        calibration=trained.calibration or Calibration(),
        weights=weights,
        training=trained.training,
        metrics=metrics or {},
        temporal=trained.temporal,
    )
    return write_bundle(TorchDetector(model.backbone, model.head), manifest, out, crops=crops, step=step)


def write_bundle(
    networks: TorchDetector,
    manifest: Manifest,
    out: Path,
    *,
    crops: Path | None = None,
    step: Step = lambda what: None,
) -> Bundle:
    """Write a trained detector as a bundle, if it passes both gates.

    Args:
        networks: The trained detector; left as it is.
        manifest: What to state about it; `weights` says how to store them. `parity` is filled in.
        out: The directory to write; an existing bundle is replaced, other files in it stay.
        crops: Face crops as `read_clips` takes them: half fit the rounding, half are for the gates.
            None leaves noise and a portrait for the gates and rounds to nearest.
        step: Is told what is being done.

    Returns:
        The bundle as loaded from `out`.

    Raises:
        OutputOccupied: `out` holds something that is no bundle.
        CropsUnreadable: `crops` cannot be read.
        GraphUnsupported: The detector has layers that cannot be exported.
        WeightsUnusable: A weight cannot be stored.
        ParityFailed: A gate failed; nothing was written.
    """
    if out.exists() and not (out / MANIFEST_FILE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputOccupied(out)
    size, window = manifest.input_size, manifest.window
    rng = np.random.default_rng(0)
    noise = noise_clips(NOISE_CLIPS, window, size, rng)
    faces = [portrait_clips(PORTRAIT_CLIPS, window, size, manifest.crop_margin, rng)]
    fit = None
    if crops is not None:
        step("reading crops")
        own = read_clips(crops, window, size, MAX_CLIPS)
        # A single clip has to serve for both.
        fit, held = own[::2], own[1::2] if len(own) > 1 else own
        faces.append(held)

    step(f"rounding weights to {manifest.weights}")
    stored = TorchDetector(
        fold_for_inference(networks.backbone, torch.from_numpy(faces[0][0, :2])),
        copy.deepcopy(networks.head).eval().requires_grad_(False),
    )
    weights = round_weights(
        stored.backbone, stored.head, manifest.weights, None if fit is None else _few(fit)
    )

    step("gate B: stored against trained weights")
    rounding = rounding_parity(
        networks,
        stored,
        noise,
        faces,
        calibration=manifest.calibration,
        min_frames=manifest.min_frames,
    )
    rounding.check(_advice(manifest, fitted=fit is not None))

    step("exporting the graphs")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        draft = Path(scratch) / out.name
        draft.mkdir()
        onnx.save(backbone_graph(stored.backbone, size, weights), draft / BACKBONE_FILE)
        onnx.save(head_graph(stored.head, manifest.feature_dim, weights), draft / HEAD_FILE)
        write_manifest(draft, manifest)

        step("gate A: engine against torch")
        with OnnxRuntimeEngine(load_bundle(draft), precision="fp32") as engine:
            parity = engine_parity(
                stored,
                engine,
                [clips[:ENGINE_CLIPS] for clips in (noise, *faces)],
                min_frames=manifest.min_frames,
            )
            described = engine.describe()
        parity.check()

        figures: dict[str, Any] = {
            "gate_a": {"engine": described, **report(parity)},
            "gate_b": dict(report(rounding)),
            "clips": {
                "noise": len(noise),
                "portrait": len(faces[0]),
                "crops": sum(len(clips) for clips in faces[1:]),
                "fitted": 0 if fit is None else len(fit),
            },
            "parameters": _parameters(weights),
            "made_with": {
                "torch": str(torch.__version__),
                "onnx": onnx.__version__,
                "machine": platform.machine(),
            },
        }
        write_manifest(draft, msgspec.structs.replace(manifest, parity=figures))
        if fit is not None and int8_is_exact():
            step("int8 arithmetic against float32")
            # Of the own faces alone, as in `--check`: the portrait is one face, and stands or falls as one.
            figures["int8"] = _int8(draft, stored, fit, faces[-1])
            write_manifest(draft, msgspec.structs.replace(manifest, parity=figures))
        _install(draft, out)
    return load_bundle(out)


def _int8(draft: Path, stored: TorchDetector, fit: Clips, clips: Clips) -> dict[str, Any]:
    """Calibrate a bundle for int8 arithmetic, and leave it so if its verdicts stay.

    Args:
        draft: The bundle's directory.
        stored: Torch with the stored weights.
        fit: Clips of real faces for the ranges.
        clips: Others to compare on.

    Returns:
        What was measured, for the manifest, which is to be written again.
    """
    bundle = load_bundle(draft)
    plain = bundle.backbone.read_bytes()
    crops = _few(fit).flatten(0, 1).numpy()
    bundle.backbone.write_bytes(add_activation_ranges(plain, crops))
    write_manifest(draft, bundle)
    least = bundle.min_frames
    with OnnxRuntimeEngine(load_bundle(draft), precision="int8") as engine:
        given = record_outputs(engine, clips, precision="int8", digest=bundle.digest, min_frames=least).logits
    parity = verdict_parity(
        torch_window_logits(stored, torch_features(stored, clips), least),
        given,
        calibration=bundle.calibration,
        crops=clips.shape[0] * clips.shape[1],
        allowed=allowed_figures(bundle, "int8", trained=False),
    )
    if parity.failures:
        bundle.backbone.write_bytes(plain)
    return {**report(parity), "flipped": parity.flipped, "used": not parity.failures}


def _few(clips: Clips) -> torch.Tensor:
    frames = min(FRAMES_TO_FIT, clips.shape[1])
    chosen = np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)
    count = max(1, CALIBRATION_PIXELS // (frames * clips.shape[2] * clips.shape[3]))
    spread = np.unique(np.linspace(0, len(clips) - 1, count).round().astype(int))
    return torch.from_numpy(np.ascontiguousarray(clips[spread][:, chosen]))


def _parameters(weights: Mapping[str, StoredWeight]) -> dict[str, int]:
    """Count the large weights' parameters by how they are stored."""
    counts = Counter[str]()
    for weight in weights.values():
        counts[weight.values.dtype.name] += weight.values.size
    return dict(counts)


def _advice(manifest: Manifest, *, fitted: bool) -> str:
    if manifest.weights == "float32":
        return "this is a defect in the export, not in your model: please report it"
    if manifest.weights == "float16":
        return "use --weights float32"
    if not fitted:
        return "give face crops with --crops for a finer rounding, or use --weights float16 (twice the size)"
    return "use --weights float16 (twice the size)"


def _install(draft: Path, out: Path) -> None:
    """Put the finished files in place; the manifest last, since without its match nothing is loaded."""
    draft.chmod(0o755)
    if not out.exists():
        os.replace(draft, out)
        return
    # A judge that the new model does not have must not stay beside it.
    (out / TEMPORAL_FILE).unlink(missing_ok=True)
    for file in sorted(draft.iterdir(), key=lambda file: file.name == MANIFEST_FILE):
        shutil.move(file, out / file.name)
