"""Comparison of torch with every engine and precision on one set of crops, as by `unmask export --check`.

    unmask export BUNDLE --check --crops FACES
    unmask export CHECKPOINT --out BUNDLE --check --crops FACES

For a bundle, torch computes with the stored weights; for a checkpoint, with the trained ones. An engine that
cannot run in this process records its outputs in another (`runtime/engines/recorded_outputs.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.errors import EnginesDiffer, RecordedOutputsForeign
from export.parity.face_clips import Clips, portrait_clips, read_clips, read_residuals
from export.parity.restored_detector import restored_detector
from export.parity.torch_detector import TorchDetector, torch_features, torch_window_logits
from export.parity.verdict_parity import VerdictParity, allowed_figures, temporal_logits, verdict_parity
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.recorded_outputs import (
    RecordedOutputs,
    fingerprint,
    load_recorded_outputs,
    record_outputs,
)
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS
from runtime.errors import EngineUnavailable
from runtime.files import atomic_path, write_atomically
from runtime.model.bundle import Bundle

MIN_CROPS, MIN_WINDOWS = 2000, 200
PORTRAIT_CLIPS = 8
# Output to a file has no width of its own.
LOG_WIDTH = 140

ReportStep = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `unmask export --check`.

    Args:
        crops: Face crops for `read_clips`; None for a portrait. On a portrait, flipped verdicts are counted
            but do not fail engines below float32.
        recorded: Recorded outputs of engines that ran elsewhere.
        save_crops: File for the crops, to record outputs elsewhere; None for none.
        json_out: File for the results as JSON; None for none.
        tensorrt: Whether to run TensorRT in this process.
    """

    crops: Path | None = None
    recorded: Sequence[Path] = ()
    save_crops: Path | None = None
    json_out: Path | None = None
    tensorrt: bool = True


@dataclass(frozen=True)
class EngineResult:
    """One line of the table.

    Args:
        engine: Description of the engine.
        precision: Precision that it computed in.
        parity: Differences from torch; None if it did not run.
        unavailable: Reason why it did not run; empty if it did.
    """

    engine: str
    precision: str
    parity: VerdictParity | None = None
    unavailable: str = ""


def run_check(
    bundle: Bundle,
    options: CheckOptions,
    *,
    trained: TorchDetector | None = None,
    step: ReportStep = lambda text: None,
) -> list[EngineResult]:
    """Compare the engines, print the table and write the record.

    Args:
        bundle: Model bundle that the engines run.
        options: The crops, and recorded outputs of other engines.
        trained: Torch with the trained weights; None for the stored weights of the bundle.
        step: Called with a description of each step.

    Returns:
        The lines of the table.

    Raises:
        EnginesDiffer: An engine differs from torch by more than the limit; table and record were written.
        RecordedOutputsForeign: Recorded outputs are of other crops or another model.
        CropsUnreadable: The crops cannot be read.
        GraphUnsupported: The bundle is not of the detector that unmask trains.
        UnmaskError: An engine failed.
    """
    step("reading crops")
    clips = checked_clips(bundle, options.crops)
    residuals = None
    if options.crops is not None:
        residuals = read_residuals(options.crops, clips.shape[1], len(clips))
    if options.save_crops is not None:
        with atomic_path(options.save_crops) as draft, draft.open("wb") as file:
            np.savez(file, clips=clips)
    recorded = [_read_recorded(path, clips, bundle) for path in options.recorded]
    step("torch, float32")
    reference = restored_detector(bundle) if trained is None else trained
    expected = torch_window_logits(reference, torch_features(reference, clips), bundle.min_frames)

    def compare(outputs: RecordedOutputs) -> EngineResult:
        parity = verdict_parity(
            expected,
            outputs.logits,
            calibration=bundle.calibration,
            crops=clips.shape[0] * clips.shape[1],
            allowed=allowed_figures(
                bundle, outputs.precision, trained=trained is not None, portrait=options.crops is None
            ),
            temporal=temporal_logits(bundle, residuals),
        )
        return EngineResult(outputs.engine, outputs.precision, parity)

    results = []
    for name, precision, engine in _engines(bundle, tensorrt=options.tensorrt):
        if isinstance(engine, EngineUnavailable):
            results.append(EngineResult(name, precision, unavailable=engine.reason))
            continue
        step(f"{name}, {precision}")
        with engine:
            outputs = record_outputs(
                engine, clips, precision=precision, digest=bundle.digest, min_frames=bundle.min_frames
            )
        results.append(compare(outputs))
    results += [compare(outputs) for outputs in recorded]
    record = _record(bundle, results, real=options.crops is not None, trained=trained is not None)
    _print(record, results)
    if options.json_out is not None:
        write_atomically(options.json_out, json.dumps(record, indent=2) + "\n")
    _raise_first_failure(results)
    return results


def clips_needed(window: int, min_frames: int) -> int:
    """Return the number of clips that contain `MIN_CROPS` crops and `MIN_WINDOWS` windows.

    Args:
        window: Crops per clip.
        min_frames: Length of the shortest window.
    """
    return max(math.ceil(MIN_CROPS / window), math.ceil(MIN_WINDOWS / (window - min_frames + 1)))


def checked_clips(bundle: Bundle, crops: Path | None) -> Clips:
    """Return the clips to compare on; the same on every call.

    Args:
        bundle: The model bundle.
        crops: Face crops for `read_clips`; None for a portrait.

    Returns:
        uint8 RGB `(K, window, H, W, 3)`.

    Raises:
        CropsUnreadable: The crops cannot be read.
    """
    window, size = bundle.window, bundle.input_size
    if crops is None:
        return portrait_clips(PORTRAIT_CLIPS, window, size, bundle.crop_margin, np.random.default_rng(0))
    return read_clips(crops, window, size, clips_needed(window, bundle.min_frames))


def _read_recorded(path: Path, clips: Clips, bundle: Bundle) -> RecordedOutputs:
    outputs = load_recorded_outputs(path)
    if outputs.bundle_digest != bundle.digest:
        raise RecordedOutputsForeign(path, "another model")
    if outputs.clips_digest != fingerprint(clips):
        raise RecordedOutputsForeign(path, "other crops")
    return outputs


def _engines(bundle: Bundle, *, tensorrt: bool) -> Iterator[tuple[str, str, Engine | EngineUnavailable]]:
    yield "onnxruntime", "fp32", OnnxRuntimeEngine(bundle, precision="fp32")
    # Without int8 support of the bundle or the CPU, int8 is never used, so it has no line.
    chosen = OnnxRuntimeEngine(bundle)
    if chosen.precision == "int8":
        yield "onnxruntime", "int8", chosen
        if find_spec("openvino") is not None:
            yield "openvino", "int8", OpenVinoEngine(bundle)
    for precision in PRECISIONS if tensorrt else ():
        try:
            yield "tensorrt", precision, open_engine(bundle, "tensorrt", precision=precision)
        except EngineUnavailable as error:
            yield "tensorrt", precision, error


def _raise_first_failure(results: Sequence[EngineResult]) -> None:
    for result in results:
        if result.parity is not None and result.parity.failures:
            figure = result.parity.failures[0]
            raise EnginesDiffer(
                f"{result.engine} in {result.precision}",
                figure,
                getattr(result.parity, figure),
                result.parity.allowed[figure],
            )


def _record(bundle: Bundle, results: Sequence[EngineResult], *, real: bool, trained: bool) -> dict[str, Any]:
    return {
        "check": "parity",
        "model": {"name": bundle.name, "digest": bundle.digest, "weights": bundle.weights},
        "reference": f"torch {torch.__version__}, float32, {'trained' if trained else 'stored'} weights",
        "crops": "given" if real else "one portrait",
        "engines": [
            {"engine": result.engine, "precision": result.precision, "unavailable": result.unavailable}
            if result.parity is None
            else {
                "engine": result.engine,
                "precision": result.precision,
                **asdict(result.parity),
                "flipped": result.parity.flipped,
                "passed": not result.parity.failures,
            }
            for result in results
        ],
    }


def _print(record: Mapping[str, Any], results: Sequence[EngineResult]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(f"model {record['model']['name']} against {record['reference']}")
    console.print(_table(results))
    for reason in dict.fromkeys(result.unavailable for result in results if result.unavailable):
        console.print(f"tensorrt does not run here: {reason}")
    compared = [result.parity for result in results if result.parity is not None]
    few = any(parity.crops < MIN_CROPS or parity.windows < MIN_WINDOWS for parity in compared)
    if record["crops"] != "given":
        console.print("compared on one portrait only: give face crops with --crops for meaningful figures")
    elif few:
        console.print(
            f"compared on few crops: meaningful figures need {MIN_CROPS} crops and {MIN_WINDOWS} windows; "
            "give more with --crops"
        )


def _table(results: Sequence[EngineResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("engine")
    table.add_column("precision", no_wrap=True)
    figures = ("max Δlogit", "mean Δlogit", "max Δp", "mean Δp", "flips", "windows", "crops")
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for result in results:
        parity = result.parity
        if parity is None:
            missing = [*[Text("-", "dim")] * len(figures), Text("unavailable", "dim")]
            table.add_row(result.engine, result.precision, *missing)
            continue
        values = (parity.logit_max, parity.logit_mean, parity.p_fake_max, parity.p_fake_mean)
        table.add_row(
            result.engine,
            result.precision,
            *(f"{value:.2g}" for value in values),
            *(str(count) for count in (parity.flips, parity.windows, parity.crops)),
            Text("FAILED: " + ", ".join(parity.failures), "bold red") if parity.failures else "passed",
        )
    return table
