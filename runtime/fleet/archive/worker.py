"""Scanner of a worker, which loads the model and the engine once and then scans one file after the other."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UnmaskError
from runtime.fleet.loaded_model import ModelSetup, load_model
from runtime.pipeline.scan import Scanner
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.timeline import ScanTimeline


@dataclass(frozen=True, kw_only=True)
class ScanSetup(ModelSetup):
    """Settings of every worker of a scan.

    Args:
        max_stills: Frames to keep of each video for the reports; None without reports.
    """

    max_stills: int | None


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


class ScanWorker:
    """Model, engine and scanner of one process.

    Args:
        setup: What the scan needs.

    Raises:
        WorkerRefused: The model or the engine cannot be used here, or another version is installed.
    """

    def __init__(self, setup: ScanSetup) -> None:
        self._setup = setup
        self._stack = ExitStack()
        model = load_model(setup, self._stack)
        self._scanner = Scanner(model.bundle, head=model.engine, batcher=model.batcher, infer=model.infer)
        self.engine = model.engine.describe()
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
