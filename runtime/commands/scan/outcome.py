"""Output of `unmask scan`: JSON lines, table, progress bar and reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from runtime.commands.console import FACE_STYLES
from runtime.commands.options import UserError
from runtime.errors import ReportNotWritten
from runtime.fleet.archive.finished import open_continued
from runtime.model.bundle import Bundle
from runtime.model.calibration import Calibration
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.files import make_report, write_report
from runtime.scan_report.timeline import MAX_STILLS
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
        reports: Reports to write at the end: `.html` with images, `.json` with all scores.
        annotate: Annotated video to write, of the only file; None for none.
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        jobs: Number of processes on this machine.
        ray: Address of a Ray cluster, `auto` or `local`; empty for that of this machine, or else a local one;
            None to scan without Ray.
        resume: Lines of an earlier scan, whose files are left out, and to which lines are appended.
    """

    paths: Sequence[Path]
    as_json: bool = False
    reports: Sequence[Path] = ()
    annotate: Path | None = None
    model: Path | None = None
    engine: str = "auto"
    jobs: int = 1
    ray: str | None = None
    resume: Path | None = None


def stills_per_video(files: int) -> int:
    """Return the number of frames to keep of each video of a report.

    Args:
        files: Number of videos.
    """
    return min(MAX_STILLS, max(MIN_STILLS, MAX_STILLS_OF_REPORT // max(1, files)))


class ScanOutcome:
    """Results of the files scanned so far, and where they are shown.

    With `--json` and without reports, nothing of a file is kept after its line.

    Args:
        options: Options of the command.
        stack: Closes the file of `--resume`.
        files: Number of files to scan.
        unreadable: Number of files that an earlier scan could not read.

    Attributes:
        engine: Description of the engine; empty before it is known.
        scanned: Number of files that are done.
        unreadable: Number of files that could not be read.
        progress: The progress bar, a context manager.
    """

    def __init__(self, options: ScanOptions, stack: ExitStack, *, files: int, unreadable: int) -> None:
        self.engine = ""
        self.scanned = 0
        self.unreadable = unreadable
        self._options = options
        self._lines = [sys.stdout] if options.as_json else []
        if options.resume is not None:
            continued = open_continued(options.resume, sys.stdout)
            if continued is not None:
                self._lines.append(stack.enter_context(continued))
            else:
                self._lines = [sys.stdout]
        # By position: workers finish files in another order.
        self._results: dict[int, ScanResult] = {}
        self._videos: dict[int, ScannedVideo] = {}
        # JSON lines and the progress bar would overwrite each other in one terminal.
        self.progress = _progress(hidden=options.as_json and sys.stdout.isatty())
        # The length of a single file is unknown, so its bar only shows activity.
        self._task = self.progress.add_task("", total=files if files > 1 else None, seconds=0.0)

    def begin(self, file: Path) -> None:
        """Show that a file is being scanned."""
        self.progress.update(self._task, description=printable(Path(shown_path(file)).name), seconds=0.0)

    def show_seconds(self, seconds: float) -> None:
        """Show how many seconds of the file are done."""
        self.progress.update(self._task, seconds=seconds)

    def show_problem(self, text: str) -> None:
        """Show a line about something that went wrong."""
        self.progress.console.print(f"unmask: {printable(text, 2000)}", markup=False, soft_wrap=True)

    def add(self, index: int, result: ScanResult, video: ScannedVideo | None) -> None:
        """Show the result of a file.

        Args:
            index: Position of the file, from 0.
            result: The result.
            video: Result and timeline for the reports; None without reports.
        """
        self.scanned += 1
        self.unreadable += result.state == "unreadable"
        if not self._options.as_json:
            self._results[index] = result
        if video is not None:
            self._videos[index] = video
        if result.error is not None:
            self.progress.console.print(f"unmask: {result.error}", markup=False, soft_wrap=True)
        line = json.dumps(result.to_dict(), allow_nan=False)
        for file in self._lines:
            print(line, file=file, flush=True)
        self.progress.advance(self._task)

    def finish(self, bundle: Bundle) -> None:
        """Print the table and write the reports, each whatever became of the others.

        Raises:
            ReportNotWritten: A report cannot be written.
            UserError: Several reports cannot be written; one line for each.
        """
        try:
            if self._results:
                results = [result for _, result in sorted(self._results.items())]
                Console(highlight=False).print(_table(results, bundle.calibration))
        finally:
            self._write_reports(bundle)

    def _write_reports(self, bundle: Bundle) -> None:
        if not self._videos:
            return
        report = make_report([video for _, video in sorted(self._videos.items())], bundle, self.engine)
        problems: list[ReportNotWritten] = []
        for path in self._options.reports:
            try:
                write_report(path, report)
            except ReportNotWritten as error:
                problems.append(error)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise UserError(*map(str, problems))


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
    if result.reason is not None:
        return Text(f"uncertain ({result.reason.replace('_', ' ')})", FACE_STYLES["uncertain"])
    state = calibration.state(result.p_fake)
    return Text(state, FACE_STYLES[state])
