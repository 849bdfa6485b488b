"""The parity table: torch against every engine in every precision that runs here, on one set of crops.

    unmask export BUNDLE --check --crops FACES
    unmask export CHECKPOINT --out BUNDLE --check --crops FACES

Of a bundle, torch gets the stored weights back; of a checkpoint, it has the trained ones. An engine that
cannot run in this process records its outputs in another (`runtime/engines/recorded_outputs.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.errors import EnginesDiffer, RecordedOutputsForeign
from export.parity.face_clips import Clips, portrait_clips, read_clips
from export.parity.gates import (
    TorchDetector,
    VerdictParity,
    allowed_figures,
    torch_features,
    torch_window_logits,
    verdict_parity,
)
from export.parity.restored_detector import restored_detector
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
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
WIDTH = 140

Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Holds what `unmask export --check` was asked for.

    Args:
        crops: Face crops as `read_clips` takes them; None for a portrait, which proves little: below float32
            its verdicts are counted, but may turn.
        recorded: Recorded outputs of engines that ran elsewhere.
        save_crops: Where to write the crops for such an engine; None for nowhere.
        json_out: Where to write the figures; None for nowhere.
        tensorrt: Whether to try TensorRT in this process.
    """

    crops: Path | None = None
    recorded: Sequence[Path] = ()
    save_crops: Path | None = None
    json_out: Path | None = None
    tensorrt: bool = True


@dataclass(frozen=True)
class Row:
    """Is one line of the table.

    Args:
        engine: What ran.
        precision: What it computed in.
        parity: The figures; None if it did not run.
        absent: Why it did not.
    """

    engine: str
    precision: str
    parity: VerdictParity | None = None
    absent: str = ""


def run_check(
    bundle: Bundle,
    options: CheckOptions,
    *,
    trained: TorchDetector | None = None,
    step: Step = lambda what: None,
) -> list[Row]:
    """Compare, print the table, write the record.

    Args:
        bundle: The model as the engines have it.
        options: On which crops, and with which recorded outputs.
        trained: Torch with the trained weights; None for the bundle's own.
        step: Is told what is being done.

    Returns:
        The table.

    Raises:
        EnginesDiffer: An engine is further from torch than allowed; the table was printed and written.
        RecordedOutputsForeign: Recorded outputs are of other crops or another model.
        CropsUnreadable: The crops cannot be read.
        GraphUnsupported: The bundle is not of the detector that unmask trains.
        UnmaskError: An engine broke.
    """
    step("reading crops")
    clips = checked_clips(bundle, options.crops)
    if options.save_crops is not None:
        with atomic_path(options.save_crops) as draft, draft.open("wb") as file:
            np.savez(file, clips=clips)
    foreign = [load_recorded_outputs(path) for path in options.recorded]
    for path, outputs in zip(options.recorded, foreign, strict=True):
        _belongs(path, outputs, clips, bundle)
    step("torch, float32")
    networks = restored_detector(bundle) if trained is None else trained
    expected = torch_window_logits(networks, torch_features(networks, clips), bundle.min_frames)

    def row(outputs: RecordedOutputs) -> Row:
        allowed = allowed_figures(
            bundle, outputs.precision, trained=trained is not None, portrait=options.crops is None
        )
        parity = verdict_parity(
            expected,
            outputs.logits,
            calibration=bundle.calibration,
            crops=clips.shape[0] * clips.shape[1],
            allowed=allowed,
        )
        return Row(outputs.engine, outputs.precision, parity)

    rows = []
    for name, precision, engine in _engines(bundle, tensorrt=options.tensorrt):
        if isinstance(engine, EngineUnavailable):
            rows.append(Row(name, precision, absent=engine.reason))
            continue
        step(f"{name}, {precision}")
        with engine:
            outputs = record_outputs(
                engine, clips, precision=precision, digest=bundle.digest, min_frames=bundle.min_frames
            )
        rows.append(row(outputs))
    rows += [row(outputs) for outputs in foreign]
    record = _record(bundle, rows, real=options.crops is not None, trained=trained is not None)
    _print(record, rows)
    if options.json_out is not None:
        write_atomically(options.json_out, json.dumps(record, indent=2) + "\n")
    for entry in rows:
        if entry.parity is not None and entry.parity.failures:
            figure = entry.parity.failures[0]
            raise EnginesDiffer(
                f"{entry.engine} in {entry.precision}",
                figure,
                getattr(entry.parity, figure),
                entry.parity.allowed[figure],
            )
    return rows


def clips_needed(window: int, min_frames: int) -> int:
    """Say how many clips hold enough crops and windows.

    Args:
        window: Crops of a clip.
        min_frames: The shortest window that is judged.

    Returns:
        The least that holds `MIN_CROPS` and `MIN_WINDOWS`.
    """
    return max(math.ceil(MIN_CROPS / window), math.ceil(MIN_WINDOWS / (window - min_frames + 1)))


def checked_clips(bundle: Bundle, crops: Path | None) -> Clips:
    """Give the clips that are compared.

    Args:
        bundle: The model.
        crops: Face crops as `read_clips` takes them; None for a portrait.

    Returns:
        uint8 RGB `(K, window, H, W, 3)`, the same every time.

    Raises:
        CropsUnreadable: The crops cannot be read.
    """
    window, size = bundle.window, bundle.input_size
    if crops is None:
        return portrait_clips(PORTRAIT_CLIPS, window, size, bundle.crop_margin, np.random.default_rng(0))
    return read_clips(crops, window, size, clips_needed(window, bundle.min_frames))


def _belongs(path: Path, outputs: RecordedOutputs, clips: Clips, bundle: Bundle) -> None:
    if outputs.bundle_digest != bundle.digest:
        raise RecordedOutputsForeign(path, "another model")
    if outputs.clips_digest != fingerprint(clips):
        raise RecordedOutputsForeign(path, "other crops")


def _engines(bundle: Bundle, *, tensorrt: bool) -> Iterator[tuple[str, str, Engine | EngineUnavailable]]:
    yield "onnxruntime", "fp32", OnnxRuntimeEngine(bundle, precision="fp32")
    # int8 gets a row only if the engine would choose it: the bundle has ranges, the CPU's sums are exact.
    chosen = OnnxRuntimeEngine(bundle)
    if chosen.precision == "int8":
        yield "onnxruntime", "int8", chosen
    for precision in PRECISIONS if tensorrt else ():
        try:
            yield "tensorrt", precision, open_engine(bundle, "tensorrt", precision=precision)
        except EngineUnavailable as error:
            yield "tensorrt", precision, error


def _record(bundle: Bundle, rows: Sequence[Row], *, real: bool, trained: bool) -> dict[str, Any]:
    return {
        "check": "parity",
        "model": {"name": bundle.name, "digest": bundle.digest, "weights": bundle.weights},
        "reference": f"torch {torch.__version__}, float32, {'trained' if trained else 'stored'} weights",
        "crops": "given" if real else "one portrait",
        "engines": [
            {"engine": row.engine, "precision": row.precision, "absent": row.absent}
            if row.parity is None
            else {
                "engine": row.engine,
                "precision": row.precision,
                **asdict(row.parity),
                "flipped": row.parity.flipped,
                "passed": not row.parity.failures,
            }
            for row in rows
        ],
    }


def _print(record: Mapping[str, Any], rows: Sequence[Row]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        # A file or a log has no width; the table should be whole there.
        console.width = WIDTH
    console.print(f"model {record['model']['name']} against {record['reference']}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("engine")
    table.add_column("precision", no_wrap=True)
    figures = ("max Δlogit", "mean Δlogit", "max Δp", "mean Δp", "flips", "windows", "crops")
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        found = row.parity
        if found is None:
            table.add_row(
                row.engine, row.precision, *[Text("-", "dim")] * len(figures), Text("not here", "dim")
            )
            continue
        values = (found.logit_max, found.logit_mean, found.p_fake_max, found.p_fake_mean)
        table.add_row(
            row.engine,
            row.precision,
            *(f"{value:.2g}" for value in values),
            *(str(count) for count in (found.flips, found.windows, found.crops)),
            Text("FAILED: " + ", ".join(found.failures), "bold red") if found.failures else "passed",
        )
    console.print(table)
    for reason in dict.fromkeys(row.absent for row in rows if row.absent):
        console.print(f"tensorrt does not run here: {reason}")
    compared = [row.parity for row in rows if row.parity is not None]
    few = any(found.crops < MIN_CROPS or found.windows < MIN_WINDOWS for found in compared)
    if record["crops"] != "given":
        console.print("compared on one portrait only: give face crops with --crops for figures that count")
    elif few:
        console.print(
            f"compared on less than the {MIN_CROPS} crops and {MIN_WINDOWS} windows that figures need: "
            "give more with --crops"
        )
