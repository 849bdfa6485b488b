"""The command `unmask scan`: one JSON line or table row per video, and a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from runtime.commands.console import FACE_STYLES
from runtime.commands.options import complain
from runtime.engines.factory import detector_infer, open_engine
from runtime.messages import FaceState
from runtime.model.bundle import Bundle, load_bundle
from runtime.model.calibration import Calibration
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import Scanner, find_videos
from runtime.pipeline.scan_result import ScanResult
from streams.input.address import shown_path
from streams.text import printable


def run_scan(
    paths: Sequence[Path], *, as_json: bool = False, model: Path | None = None, engine: str = "auto"
) -> int:
    """Score videos and print the results.

    Args:
        paths: Files and directories; see `find_videos`.
        as_json: Whether to print one JSON line per file as soon as it is done, instead of a table at the end.
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime` or `tensorrt`.

    Returns:
        Exit code: 2 if a file could not be read, else 0. After Ctrl-C the results so far are printed.

    Raises:
        NoVideos: A directory contains no video file.
        UnmaskError: The model or the engine cannot be used.
    """
    files = list(find_videos(paths))
    bundle = load_bundle(model)
    results: list[ScanResult] = []
    try:
        _scan_all(files, results, bundle, as_json=as_json, engine=engine)
    except KeyboardInterrupt:
        complain(f"interrupted: {len(results)} of {len(files)} files were scanned")
    finally:
        # The results so far are shown, also if the engine has failed.
        if results and not as_json:
            Console(highlight=False).print(_table(results, bundle.calibration))
    return 2 if any(result.state == "unreadable" for result in results) else 0


def _scan_all(
    files: Sequence[Path], results: list[ScanResult], bundle: Bundle, *, as_json: bool, engine: str
) -> None:
    """Scan the files one after the other and append their results."""
    infer = detector_infer(engine)
    # JSON lines and the progress bar would overwrite each other in one terminal.
    hidden = as_json and sys.stdout.isatty()
    with (
        open_engine(bundle, engine) as running,
        Batcher(running.features) as batcher,
        _progress(hidden=hidden) as progress,
    ):
        scanner = Scanner(bundle, head=running, batcher=batcher, infer=infer)
        # The length of a single file is unknown, so its bar only shows activity.
        task = progress.add_task("", total=len(files) if len(files) > 1 else None, seconds=0.0)
        for file in files:
            progress.update(task, description=printable(Path(shown_path(file)).name), seconds=0.0)
            result = scanner.scan(file, on_progress=lambda seconds: progress.update(task, seconds=seconds))
            results.append(result)
            if result.error is not None:
                progress.console.print(f"unmask: {result.error}", markup=False, soft_wrap=True)
            if as_json:
                print(json.dumps(result.to_dict(), allow_nan=False), flush=True)  # noqa: T201
            progress.advance(task)


def _progress(*, hidden: bool) -> Progress:
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[seconds]:.0f} s of video"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=hidden or not console.is_terminal,
    )


def _table(results: Sequence[ScanResult], calibration: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("file", overflow="fold")
    for column in ("verdict", "p_fake", "faces", "seconds"):
        table.add_column(column, no_wrap=True, justify="left" if column == "verdict" else "right")
    for result in results:
        table.add_row(
            Text(printable(result.file)),
            _verdict(result, calibration),
            "" if result.p_fake is None else f"{result.p_fake:.3f}",
            str(len(result.faces)),
            f"{result.seconds:.1f}",
        )
    return table


def _verdict(result: ScanResult, calibration: Calibration) -> Text:
    if result.p_fake is None:
        return Text(result.state, "red" if result.state == "unreadable" else "dim")
    state: FaceState = "uncertain"
    if result.p_fake >= calibration.threshold_fake:
        state = "fake"
    elif result.p_fake <= calibration.threshold_real:
        state = "real"
    return Text(state, FACE_STYLES[state])
