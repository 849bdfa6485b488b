"""The command `unmask scan`: one JSON line or table row per video, a progress bar, and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.commands.options import UserError, complain
from runtime.commands.scan.outcome import ScanOptions, ScanOutcome, stills_per_video
from runtime.engines.cpu import usable_cores
from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import ClusterLost, ReportNotWritten, VideoNotWritten
from runtime.files import is_one_of
from runtime.fleet.archive.actors import ActorPool
from runtime.fleet.archive.finished import FinishedFiles, read_finished
from runtime.fleet.archive.pool import WorkerPool
from runtime.fleet.archive.processes import ProcessPool
from runtime.fleet.archive.scan import ArchiveEvents, ArchiveScan
from runtime.fleet.archive.worker import ScanSetup
from runtime.fleet.cluster import open_cluster, own_niceness
from runtime.messages import Thresholds
from runtime.model.bundle import Bundle, load_bundle
from runtime.outputs.annotated_video.video import AnnotatedVideo
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import OnSample, Scanner, find_videos
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.files import check_report_path
from runtime.scan_report.timeline import ScanTimeline
from runtime.version import version


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
        ResumeFailed: The lines of the earlier scan cannot be used.
        UserError: Options exclude each other.
        UnmaskError: The model, the engine, the cluster or every worker cannot be used.
    """
    _check_options(options)
    # Checked first: a scan may take an hour.
    for path in options.reports:
        check_report_path(path)
    files = list(find_videos(options.paths))
    _check_not_scanned(options, files)
    finished = FinishedFiles() if options.resume is None else read_finished(options.resume)
    files = finished.without(files)
    bundle = load_bundle(options.model)
    with ExitStack() as stack:
        outcome = ScanOutcome(options, stack, files=len(files), unreadable=finished.unreadable)
        try:
            if options.ray is None and options.jobs == 1:
                _scan_here(files, outcome, bundle, options)
            else:
                _scan_with_workers(files, outcome, bundle, options)
        except KeyboardInterrupt:
            complain(f"interrupted: {outcome.scanned} of {len(files)} files were scanned")
        except ClusterLost:
            complain(f"{outcome.scanned} of {len(files)} files were scanned")
            raise
        finally:
            # The results so far are shown, also if the engine has failed.
            outcome.finish(bundle)
    return 2 if outcome.unreadable else 0


def _check_options(options: ScanOptions) -> None:
    if options.ray is not None and options.jobs > 1:
        raise UserError("--jobs uses processes of this machine, and --ray a cluster; give one of them")
    if options.annotate is not None and (options.ray is not None or options.jobs > 1):
        raise UserError("--annotate writes one video on this machine; leave out --ray and --jobs")
    if options.resume is not None and options.reports:
        raise UserError("--report needs the samples of every video; leave out --resume")


def _scan_here(files: Sequence[Path], outcome: ScanOutcome, bundle: Bundle, options: ScanOptions) -> None:
    """Scan the files one after the other in this process."""
    infer = detector_infer(options.engine)
    max_stills = stills_per_video(len(files))
    with (
        open_engine(bundle, options.engine) as running,
        Batcher(running.features) as batcher,
        outcome.progress,
    ):
        outcome.engine = running.describe()
        scanner = Scanner(bundle, head=running, batcher=batcher, infer=infer)
        for index, file in enumerate(files):
            outcome.begin(file)
            timeline = ScanTimeline(max_stills=max_stills)
            with _samples_of(timeline, bundle, options) as on_sample:
                result = scanner.scan(file, on_progress=outcome.show_seconds, on_sample=on_sample)
            outcome.add(index, result, ScannedVideo.of(file, result, timeline) if options.reports else None)


def _scan_with_workers(
    files: Sequence[Path], outcome: ScanOutcome, bundle: Bundle, options: ScanOptions
) -> None:
    """Scan the files with processes of this machine or actors of a cluster."""
    processes = min(options.jobs, max(1, len(files)))
    setup = ScanSetup(
        folder=Path.cwd(),
        model=options.model,
        digest=bundle.digest,
        version=version(),
        engine=options.engine,
        threads=max(1, usable_cores() // processes),
        max_stills=stills_per_video(len(files)) if options.reports else None,
        niceness=own_niceness(),
    )

    def set_engine(engine: str) -> None:
        outcome.engine = outcome.engine or engine

    receivers = ArchiveEvents(
        on_result=lambda done: outcome.add(done.index, done.result, done.video),
        on_start=outcome.begin,
        on_engine=set_engine,
        on_problem=outcome.show_problem,
    )
    with ExitStack() as stack:
        pool: WorkerPool
        if options.ray is None:
            pool = stack.enter_context(ProcessPool(setup, processes))
        else:
            cluster = stack.enter_context(open_cluster(options.ray or None))
            pool = stack.enter_context(ActorPool(cluster, setup, len(files)))
        stack.enter_context(outcome.progress)
        ArchiveScan(files, pool, receivers).run()


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


def _check_not_scanned(options: ScanOptions, files: Sequence[Path]) -> None:
    """Check that the annotated video is of one video, and that no output replaces a video."""
    path = options.annotate
    if path is not None and len(files) != 1:
        raise VideoNotWritten(path, f"there are {len(files)} videos to scan", "scan exactly one")
    if path is not None and is_one_of(path, files):
        raise VideoNotWritten(path, "it is the video to scan", "give another path")
    for report in options.reports:
        if is_one_of(report, files):
            raise ReportNotWritten(report, "it is a video to scan", "give another path")
