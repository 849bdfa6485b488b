"""What `unmask export` does: a bundle from a checkpoint, engines from a bundle, a table that proves both.

Only what is asked for is imported: engines are built without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import CheckpointUnusable, SourceUnclear
from runtime.engines.tensorrt.onnx_rewrite import Precision
from runtime.model.bundle import Bundle, load_bundle
from runtime.model.manifest import MANIFEST_FILE, Weights

if TYPE_CHECKING:
    from export.parity.engine_check import CheckOptions

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Holds what `unmask export` was asked for.

    Args:
        source: A checkpoint, or a bundle to build engines for or to check.
        out: Where a checkpoint's bundle goes.
        weights: How it stores the weights.
        crops: Face crops for the rounding, the gates and the check.
        name: What the model calls itself.
        tensorrt: Whether to build TensorRT's engines.
        precision: Of these.
        hardware_compatible: Whether they are for all GPUs from Ampere on.
        check: Whether to compare the engines with torch.
        recorded: Recorded outputs of engines that ran elsewhere, for the check.
        save_crops: Where the check leaves its crops for them.
        json_out: Where the check leaves its figures.
    """

    source: Path
    out: Path | None = None
    weights: Weights = "int8"
    crops: Path | None = None
    name: str | None = None
    tensorrt: bool = False
    precision: Precision = "fp16"
    hardware_compatible: bool = False
    check: bool = False
    recorded: tuple[Path, ...] = ()
    save_crops: Path | None = None
    json_out: Path | None = None


def run_export(options: ExportOptions, *, say: Say, step: Say) -> int:
    """Do it.

    Args:
        options: What was asked for.
        say: Is told what was made.
        step: Is told what is being done.

    Returns:
        The exit code.

    Raises:
        SourceUnclear: The options do not fit what was given.
        UnmaskError: Something could not be made, or does not answer as torch does.
    """
    made = not (options.source / MANIFEST_FILE).is_file()
    if made:
        bundle = _make(options, say=say, step=step)
    elif options.out is not None:
        raise SourceUnclear(options.source, "is an exported model already", "leave out --out")
    elif not (options.tensorrt or options.check):
        raise SourceUnclear(
            options.source, "is an exported model already", "add --tensorrt or --check, or give a checkpoint"
        )
    else:
        bundle = load_bundle(options.source)
    if options.tensorrt:
        _build(bundle, options, say=say, step=step)
    if options.check:
        from export.parity.engine_check import run_check
        from export.parity.gates import TorchDetector

        trained = None
        if made:
            from train.models.checkpoint import load_checkpoint

            model = load_checkpoint(options.source).model
            trained = TorchDetector(model.backbone, model.head)
        run_check(bundle, _check_options(options), trained=trained, step=step)
    return 0


def _make(options: ExportOptions, *, say: Say, step: Say) -> Bundle:
    if options.out is None:
        raise SourceUnclear(
            options.source,
            "is no exported model",
            "give --out to export a checkpoint, or a model that is one",
        )
    from export.bundle_writer import export_bundle
    from train.models.checkpoint import CheckpointError

    try:
        bundle = export_bundle(
            options.source,
            options.out,
            weights=options.weights,
            crops=options.crops,
            name=options.name,
            step=step,
        )
    except CheckpointError as error:
        raise CheckpointUnusable(error) from error
    say(f"written to {options.out}: {bundle.name}, {options.weights}")
    return bundle


def _build(bundle: Bundle, options: ExportOptions, *, say: Say, step: Say) -> None:
    from runtime.engines.tensorrt.builder import load_or_build_engines
    from runtime.engines.tensorrt.engine_cache import EngineCache
    from runtime.engines.tensorrt.prepared import write_prepared

    cache = EngineCache()
    step(f"preparing the graphs for TensorRT, {options.precision}")
    # First, since they can be carried to where the engines can be built.
    folder = write_prepared(bundle, options.precision, cache)
    say(f"graphs for TensorRT in {options.precision}: {folder}")
    step("building the engines")
    engines = load_or_build_engines(
        bundle,
        precision=options.precision,
        cache=cache,
        hardware_compatible=options.hardware_compatible,
        rebuild=True,
    )
    for part, (key, engine) in engines.items():
        say(f"{part}: {len(engine) / 1e6:.1f} MB, {key.library}, {key.target}: {cache.path(key)}")


def _check_options(options: ExportOptions) -> CheckOptions:
    from export.parity.engine_check import CheckOptions

    return CheckOptions(
        crops=options.crops,
        recorded=options.recorded,
        save_crops=options.save_crops,
        json_out=options.json_out,
    )
