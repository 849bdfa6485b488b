"""Steps of `unmask export`: write a bundle, build TensorRT engines, compare engines with torch.

Each step imports its own libraries, so that engines can be built without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import CheckNotWritten, SourceUnclear
from runtime.engines.tensorrt.onnx_rewrite import Precision
from runtime.errors import os_reason
from runtime.files import check_writable
from runtime.model.bundle import Bundle, load_bundle
from runtime.model.manifest import MANIFEST_FILE, Weights

if TYPE_CHECKING:
    from export.parity.engine_check import CheckOptions

ReportLine = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `unmask export`.

    Args:
        source: Checkpoint to export, or bundle to build engines for or to check.
        out: Directory of the bundle to write.
        weights: Stored type of its weights; None for int8.
        crops: Face crops to fit the rounding, for the gates and for the check.
        name: Name of the model; None for that of the checkpoint.
        tensorrt: Whether to build TensorRT engines.
        precision: Precision of the TensorRT engines; None for fp16.
        hardware_compatible: Whether the TensorRT engines run on all GPUs from Ampere on.
        check: Whether to compare the engines with torch.
        recorded: Recorded outputs of engines that ran elsewhere, for the check.
        save_crops: Where the check writes its crops for such engines; None for nowhere.
        json_out: Where the check writes its figures; None for nowhere.
    """

    source: Path
    out: Path | None = None
    weights: Weights | None = None
    crops: Path | None = None
    name: str | None = None
    tensorrt: bool = False
    precision: Precision | None = None
    hardware_compatible: bool = False
    check: bool = False
    recorded: tuple[Path, ...] = ()
    save_crops: Path | None = None
    json_out: Path | None = None


def run_export(options: ExportOptions, *, report_result: ReportLine, report_step: ReportLine) -> int:
    """Run `unmask export`.

    Args:
        options: Options of the command.
        report_result: Called with a line for each result.
        report_step: Called with a description of each step.

    Returns:
        The exit code.

    Raises:
        SourceUnclear: The source and the options do not fit together.
        UnmaskError: A file cannot be read or written, a gate failed, or an engine differs from torch.
    """
    from_checkpoint = not (options.source / MANIFEST_FILE).is_file()
    _check_options_used(options, from_checkpoint=from_checkpoint)
    for path in (options.save_crops, options.json_out):
        if path is not None:
            _check_writable(path)
    if from_checkpoint:
        bundle = _export_checkpoint(options, report_result=report_result, report_step=report_step)
    else:
        bundle = load_bundle(options.source)
    if options.tensorrt:
        _build_engines(bundle, options, report_result=report_result, report_step=report_step)
    if options.check:
        from export.parity.engine_check import run_check
        from export.parity.torch_detector import TorchDetector

        trained = None
        if from_checkpoint:
            from train.models.checkpoint import load_checkpoint

            model = load_checkpoint(options.source).model
            trained = TorchDetector(model.backbone, model.head)
        run_check(bundle, _check_options(options), trained=trained, step=report_step)
    return 0


def _check_options_used(options: ExportOptions, *, from_checkpoint: bool) -> None:
    """Refuse options that would have no effect."""
    source = options.source
    if from_checkpoint:
        if options.out is None:
            raise SourceUnclear(source, "is not an exported model", "give --out to export a checkpoint")
    else:
        if needless := _given({"--out": options.out, "--weights": options.weights, "--name": options.name}):
            raise SourceUnclear(source, "is already an exported model", f"leave out {needless}")
        if not (options.tensorrt or options.check):
            raise SourceUnclear(
                source, "is already an exported model", "add --tensorrt or --check, or give a checkpoint"
            )
    of_check = {
        "--crops": None if from_checkpoint else options.crops,
        "--recorded": options.recorded,
        "--save-crops": options.save_crops,
        "--json": options.json_out,
    }
    of_tensorrt = {
        "--precision": options.precision,
        "--hardware-compatible": options.hardware_compatible,
    }
    for step, done, values in (
        ("--check", options.check, of_check),
        ("--tensorrt", options.tensorrt, of_tensorrt),
    ):
        if not done and (unused := _given(values)):
            raise SourceUnclear(source, f"{step} is not given, which {unused} needs", f"add {step}")


def _given(values: Mapping[str, object]) -> str:
    return " and ".join(name for name, value in values.items() if value)


def _check_writable(path: Path) -> None:
    try:
        check_writable(path)
    except OSError as error:
        raise CheckNotWritten(path, os_reason(error)) from error


def _export_checkpoint(
    options: ExportOptions, *, report_result: ReportLine, report_step: ReportLine
) -> Bundle:
    from export.bundle_writer import export_bundle

    assert options.out is not None
    weights = options.weights or "int8"
    bundle = export_bundle(
        options.source,
        options.out,
        weights=weights,
        crops=options.crops,
        name=options.name,
        step=report_step,
    )
    report_result(f"written to {options.out}: {bundle.name}, {weights}")
    return bundle


def _build_engines(
    bundle: Bundle, options: ExportOptions, *, report_result: ReportLine, report_step: ReportLine
) -> None:
    from runtime.engines.tensorrt.builder import load_or_build_engines
    from runtime.engines.tensorrt.engine_cache import EngineCache
    from runtime.engines.tensorrt.prepared import write_prepared

    cache, precision = EngineCache(), options.precision or "fp16"
    report_step(f"preparing the graphs for TensorRT, {precision}")
    # Written first, as another machine can build the engines from a copy of them.
    folder = write_prepared(bundle, precision, cache)
    report_result(f"graphs for TensorRT in {precision}: {folder}")
    report_step("building the engines")
    engines = load_or_build_engines(
        bundle,
        precision=precision,
        cache=cache,
        hardware_compatible=options.hardware_compatible,
        rebuild=True,
    )
    for part, (key, engine) in engines.items():
        report_result(f"{part}: {len(engine) / 1e6:.1f} MB, {key.library}, {key.target}: {cache.path(key)}")


def _check_options(options: ExportOptions) -> CheckOptions:
    from export.parity.engine_check import CheckOptions

    return CheckOptions(
        crops=options.crops,
        recorded=options.recorded,
        save_crops=options.save_crops,
        json_out=options.json_out,
    )
