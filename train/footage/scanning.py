"""Scans of many videos by one or more models, in processes, with stored results.

A video is scanned again only if the file, the model or the code of `streams` or `runtime` has changed.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import runtime
import streams
from runtime.engines.factory import detector_infer, open_engine
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import Scanner
from train.data.worker_pool import worker_pool
from train.footage.transcoding import TRANSCODINGS, Transcoding, TranscodingFailed, transcode
from train.footage.video_record import FootageRecorder, VideoRecord, append_record, read_records

RECORDS_FILE = "records.jsonl"
# Folders of `runtime` that decide on a score.
SCORING = {"model", "engines", "pipeline"}


@dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """Model to measure.

    Args:
        name: Name in the results.
        path: Directory of the bundle; None for the bundled model.
        network_alone: Whether to leave out the temporal classifier.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
    """

    name: str
    path: Path | None
    network_alone: bool = False
    engine: str = "auto"

    def load(self) -> Bundle:
        """Load the bundle.

        Raises:
            BundleError: The bundle cannot be used.
        """
        bundle = load_bundle(self.path)
        return msgspec.structs.replace(bundle, temporal=None) if self.network_alone else bundle


class VideoScanner:
    """Scans with one model, in one process; use it in `with`.

    Args:
        model: The model.
    """

    def __init__(self, model: BenchmarkModel) -> None:
        self._bundle = model.load()
        self._model = model
        self._stack = ExitStack()

    def __enter__(self) -> VideoScanner:
        engine = self._stack.enter_context(open_engine(self._bundle, self._model.engine))
        batcher = self._stack.enter_context(Batcher(engine.features))
        infer = detector_infer(self._model.engine)
        self._scanner = Scanner(self._bundle, head=engine, batcher=batcher, infer=infer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scan(self, path: Path) -> VideoRecord:
        """Scan one video.

        Args:
            path: The file.

        Raises:
            EngineFailed: The engine failed.
        """
        recorder = FootageRecorder(self._bundle.crop_margin)
        return recorder.record(self._scanner.scan(path, on_sample=recorder))


def scan_videos(
    paths: Sequence[Path], model: BenchmarkModel, folder: Path, *, jobs: int, console: Console
) -> dict[Path, VideoRecord]:
    """Scan videos, except those with a stored record.

    Args:
        paths: The files.
        model: The model.
        folder: Existing folder of the stored records.
        jobs: Number of processes; with 1 the calling process scans.
        console: Console of the progress bar.

    Returns:
        Records by path.

    Raises:
        BundleError: The bundle cannot be used.
        EngineError: The engine cannot run, or failed.
    """
    digest = f"{model.load().digest[:16]}{'-network' if model.network_alone else ''}-{model.engine}"
    stored = read_records(folder / RECORDS_FILE)
    keys = {path: f"{digest}-{code_digest()}-{file_key(path)}" for path in paths}
    records = {path: stored[key] for path, key in keys.items() if key in stored}
    missing = [path for path in paths if path not in records]
    with _progress(console) as progress:
        task = progress.add_task(model.name, total=len(paths), completed=len(records))
        for path, record in _scanned(missing, model, jobs):
            records[path] = record
            append_record(folder / RECORDS_FILE, keys[path], record)
            progress.advance(task)
    return records


def transcode_videos(
    paths: Sequence[Path], transcoding: Transcoding, folder: Path, *, jobs: int, console: Console
) -> dict[Path, Path | TranscodingFailed]:
    """Transcode videos, except those for which that was done before.

    Args:
        paths: The files.
        transcoding: The transcoding.
        folder: Folder of the results, created if missing.
        jobs: Number of processes.
        console: Console of the progress bar.

    Returns:
        The transcoded video, or why there is none, by path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[Path, Path | TranscodingFailed] = {}
    with _progress(console) as progress:
        task = progress.add_task(f"transcoding: {transcoding.name}", total=len(paths))
        for path, result in _transcoded(paths, transcoding.name, folder, jobs):
            results[path] = result
            progress.advance(task)
    return results


def _transcoded(
    paths: Sequence[Path], name: str, folder: Path, jobs: int
) -> Iterator[tuple[Path, Path | TranscodingFailed]]:
    if jobs == 1:
        for path in paths:
            yield path, _transcode(path, name, folder)
        return
    with worker_pool(jobs) as pool:
        futures = {pool.submit(_transcode, path, name, folder): path for path in paths}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _transcode(path: Path, name: str, folder: Path) -> Path | TranscodingFailed:
    try:
        return transcode(path, TRANSCODINGS[name], folder, key=file_key(path))
    except TranscodingFailed as failure:
        return failure


def _scanned(paths: Sequence[Path], model: BenchmarkModel, jobs: int) -> Iterator[tuple[Path, VideoRecord]]:
    if not paths:
        return
    if jobs == 1:
        with VideoScanner(model) as scanner:
            for path in paths:
                yield path, scanner.scan(path)
        return
    with worker_pool(jobs, _begin, (model, jobs)) as pool:
        futures = {pool.submit(_scan_in_worker, path): path for path in paths}
        for future in as_completed(futures):
            yield futures[future], future.result()


_worker: VideoScanner | None = None


def _begin(model: BenchmarkModel, jobs: int) -> None:
    """Prepare a worker process, which gets its share of the CPU cores."""
    global _worker
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        # Workers are numbered from 1 in their names.
        number = int(multiprocessing.current_process().name.rpartition("-")[2])
        share = cpus[number % jobs :: jobs]
        os.sched_setaffinity(0, share or cpus)
    _worker = VideoScanner(model).__enter__()


def _scan_in_worker(path: Path) -> VideoRecord:
    assert _worker is not None
    return _worker.scan(path)


@cache
def code_digest() -> str:
    """Return a hash of the source code that decides on the scores."""
    digest = hashlib.sha256()
    folders = [Path(streams.__path__[0]), *(Path(runtime.__path__[0]) / name for name in sorted(SCORING))]
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_key(path: Path) -> str:
    """Return the identity of a file: name, size and time of the last change."""
    stat = path.stat()
    return hashlib.sha256(f"{path.resolve()}-{stat.st_size}-{stat.st_mtime_ns}".encode()).hexdigest()[:24]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
