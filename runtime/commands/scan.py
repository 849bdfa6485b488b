"""The command `unmask scan`: one JSON line or table row per video, a progress bar, and reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from runtime.commands.console import FACE_STYLES
from runtime.commands.options import complain
from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import VideoNotWritten
from runtime.messages import Thresholds
from runtime.model.bundle import Bundle, load_bundle
from runtime.model.calibration import Calibration
from runtime.outputs.annotated_video.video import AnnotatedVideo
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import OnSample, Scanner, find_videos
from runtime.pipeline.scan_result import ScanResult
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.files import check_report_path, make_report, write_report
from runtime.scan_report.timeline import MAX_STILLS, ScanTimeline
from streams.input.address import shown_path
from streams.text import printable

# Frames of all videos of one report together, so that its page stays usable.
MAX_STILLS_OF_REPORT = 600
MIN_STILLS = 12


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options of `unmask scan`.

    Args:
        paths: Files and directories; see `find_videos`.
        as_json: Whether to print one JSON line per file as soon as it is done, instead of a table at the end.
        reports: Reports to write at the end: `.html` with images, `.json` without.
        annotate: Annotated video to write, of the only file; None for none.
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime` or `tensorrt`.
    """

    paths: Sequence[Path]
    as_json: bool = False
    reports: Sequence[Path] = ()
    annotate: Path | None = None
    model: Path | None = None
    engine: str = "auto"


@dataclass
class _Outcome:
    """Results of the files scanned so far."""

    results: list[ScanResult] = field(default_factory=list)
    videos: list[ScannedVideo] = field(default_factory=list)
    engine: str = ""


def run_scan(options: ScanOptions) -> int:
    """Score videos, print the results and write the reports.

    Args:
        options: Options of the command.

    Returns:
        Exit code: 2 if a file could not be read, else 0. After Ctrl-C the results so far are printed and
        reported.

    Raises:
        NoVideos: A directory contains no video file.
        ReportNotWritten: A report has another suffix or cannot be written.
        UnmaskError: The model or the engine cannot be used.
    """
    # Checked first: a scan may take an hour.
    for path in options.reports:
        check_report_path(path)
    files = list(find_videos(options.paths))
    if options.annotate is not None:
        _check_annotate(options.annotate, files)
    bundle = load_bundle(options.model)
    outcome = _Outcome()
    try:
        _scan_all(files, outcome, bundle, options)
    except KeyboardInterrupt:
        complain(f"interrupted: {len(outcome.results)} of {len(files)} files were scanned")
    finally:
        # The results so far are shown, also if the engine has failed.
        if outcome.results and not options.as_json:
            Console(highlight=False).print(_table(outcome.results, bundle.calibration))
        if outcome.videos:
            report = make_report(outcome.videos, bundle, outcome.engine)
            for path in options.reports:
                write_report(path, report)
    return 2 if any(result.state == "unreadable" for result in outcome.results) else 0


def _scan_all(files: Sequence[Path], outcome: _Outcome, bundle: Bundle, options: ScanOptions) -> None:
    """Scan the files one after the other and append their results."""
    infer = detector_infer(options.engine)
    # JSON lines and the progress bar would overwrite each other in one terminal.
    hidden = options.as_json and sys.stdout.isatty()
    max_stills = min(MAX_STILLS, max(MIN_STILLS, MAX_STILLS_OF_REPORT // max(1, len(files))))
    with (
        open_engine(bundle, options.engine) as running,
        Batcher(running.features) as batcher,
        _progress(hidden=hidden) as progress,
    ):
        outcome.engine = running.describe()
        scanner = Scanner(bundle, head=running, batcher=batcher, infer=infer)
        # The length of a single file is unknown, so its bar only shows activity.
        task = progress.add_task("", total=len(files) if len(files) > 1 else None, seconds=0.0)
        for file in files:
            progress.update(task, description=printable(Path(shown_path(file)).name), seconds=0.0)
            timeline = ScanTimeline(max_stills=max_stills)
            with _samples_of(timeline, bundle, options) as on_sample:
                result = scanner.scan(
                    file,
                    on_progress=lambda seconds: progress.update(task, seconds=seconds),
                    on_sample=on_sample,
                )
            outcome.results.append(result)
            if options.reports:
                outcome.videos.append(ScannedVideo.of(file, result, timeline))
            if result.error is not None:
                progress.console.print(f"unmask: {result.error}", markup=False, soft_wrap=True)
            if options.as_json:
                print(json.dumps(result.to_dict(), allow_nan=False), flush=True)  # noqa: T201
            progress.advance(task)


@contextmanager
def _samples_of(timeline: ScanTimeline, bundle: Bundle, options: ScanOptions) -> Iterator[OnSample]:
    """Yield the function that passes the samples of a file to the timeline and the annotated video."""
    on_report = timeline.add if options.reports else lambda *_: None
    if options.annotate is None:
        yield on_report
        return
    calibration = bundle.calibration
    thresholds = Thresholds(real=calibration.threshold_real, fake=calibration.threshold_fake)
    with AnnotatedVideo(options.annotate, thresholds, sample_hz=bundle.sample_hz) as video:

        def add(seconds: float, observed: ObservedFrame, verdicts: Sequence[FaceVerdict]) -> None:
            on_report(seconds, observed, verdicts)
            present = [verdict.message("") for verdict in verdicts if verdict.latency is not None]
            video.add(observed.frame, present)

        yield add


def _check_annotate(path: Path, files: Sequence[Path]) -> None:
    if len(files) != 1:
        raise VideoNotWritten(path, f"there are {len(files)} videos to scan; scan one of them")
    if path.exists() and path.samefile(files[0]):
        raise VideoNotWritten(path, "it is the video to scan")


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
    state = calibration.state(result.p_fake)
    return Text(state, FACE_STYLES[state])
