"""Scanner of a worker, which loads the model and the engine once and then scans one file after the other."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import UnmaskError
from runtime.model.bundle import load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import Scanner
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.timeline import ScanTimeline
from runtime.version import version


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """Settings of every worker of a scan; sent to other processes and machines.

    Args:
        folder: Working directory to which relative paths refer.
        model: Directory of the bundle; None for the bundled model.
        digest: SHA-256 of the manifest of the bundle in the process that started the scan.
        version: Version of unmask there.
        engine: As for `open_engine`.
        gpu: Whether `auto` may use a GPU.
        threads: CPU threads of the engine; None for all cores.
        max_stills: Frames to keep of each video for the reports; None without reports.
        niceness: Niceness of the command.
    """

    folder: Path
    model: Path | None
    digest: str
    version: str
    engine: str
    gpu: bool = True
    threads: int | None
    max_stills: int | None
    niceness: int = 0


@dataclass(frozen=True, kw_only=True)
class ScannedFile:
    """Outcome of a file on a worker.

    Args:
        result: The result; None if the engine has failed.
        video: Result and timeline for the reports; None without reports.
        missing: Whether the worker cannot see the file.
        failure: Why the worker cannot go on; None if it can.
    """

    result: ScanResult | None = None
    video: ScannedVideo | None = None
    missing: bool = False
    failure: str | None = None


class WorkerRefused(Exception):
    """A worker that cannot scan here.

    Args:
        reason: Cause and advice in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ScanWorker:
    """Model, engine and scanner of one process.

    Args:
        setup: What the scan needs.

    Raises:
        WorkerRefused: The model or the engine cannot be used here, or another version is installed.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._stack = ExitStack()
        # Elsewhere the folder exists only on shared storage; without it no relative path does either.
        with suppress(OSError):
            os.chdir(setup.folder)
        check_version(setup.version)
        try:
            bundle = load_bundle(setup.model)
            check_digest(bundle.digest, setup.digest)
            infer = detector_infer(setup.engine)
            engine = self._stack.enter_context(
                open_engine(bundle, setup.engine, threads=setup.threads, gpu=setup.gpu)
            )
            batcher = self._stack.enter_context(Batcher(engine.features))
        except UnmaskError as error:
            raise WorkerRefused(str(error)) from error
        self._scanner = Scanner(bundle, head=engine, batcher=batcher, infer=infer)
        self.engine = engine.describe()
        """Description of the engine."""

    def scan(self, path: Path) -> ScannedFile:
        """Scan one file.

        Args:
            path: The file; a relative path refers to the folder of the setup.
        """
        max_stills = self._setup.max_stills
        timeline = None if max_stills is None else ScanTimeline(max_stills=max_stills)
        try:
            if timeline is None:
                result = self._scanner.scan(path)
            else:
                result = self._scanner.scan(path, on_sample=timeline.add)
        except UnmaskError as error:
            return ScannedFile(failure=str(error))
        return ScannedFile(
            result=result,
            video=None if timeline is None else ScannedVideo.of(path, result, timeline),
            missing=result.error is not None and not os.path.lexists(path),
        )

    def close(self) -> None:
        """Release the engine."""
        self._stack.close()


def check_version(wanted: str) -> None:
    """Check that the same version of unmask is installed as where the command was started.

    Raises:
        WorkerRefused: Another one is.
    """
    if version() != wanted:
        raise WorkerRefused(
            f"unmask {version()} is installed here, and {wanted} where the command was started; "
            "install the same version on every machine"
        )


def check_digest(found: str, wanted: str) -> None:
    """Check that a model is the same as where the command was started.

    Raises:
        WorkerRefused: It is not.
    """
    if found != wanted:
        raise WorkerRefused(
            "the model differs from that where the command was started; copy the same directory everywhere"
        )
