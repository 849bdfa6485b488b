"""Turns a data set of videos into face clips in tar shards: `unmask train prepare`.

    prepared = prepare(Path("FaceForensics++"), Path("clips"), workers=8)
    print(prepared.clips, "clips,", prepared.skipped, "videos skipped")

Run again after a kill, it goes on where it stopped; run again after it ended, it tries what could not be
read.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Literal

import cv2
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from runtime.engines.cpu import usable_cores
from runtime.engines.factory import detector_infer
from streams.errors import SourceError
from streams.faces.detector import Detector
from streams.faces.finder import FaceFinder
from train.data.clip_cutter import ClipSpec, FaceClip, NoClip, cut_clips
from train.data.layouts import Dataset, Layout, find_videos
from train.data.shards import PreparedWriter, PrepareError, label
from train.data.splits import Split
from train.data.videos import Video

__all__ = ["ClipSpec", "PrepareError", "Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Holds what a preparation gave.

    Args:
        folder: Where it is.
        videos: How many videos were to be prepared.
        clips: How many clips they gave.
        skipped: How many gave none; `skipped.csv` lists them.
        notes: What a reader of figures on this data set should know.
    """

    folder: Path
    videos: int
    clips: int
    skipped: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Holds what came of one video: clips, or the reason why there is none.

    Args:
        clips: In order of time.
        reason: In one line; empty if there are clips.
        again: Whether another try could do better.
    """

    clips: tuple[FaceClip, ...] = ()
    reason: str = ""
    again: bool = False


def prepare(
    data: Path,
    out: Path,
    *,
    layout: Layout = "auto",
    split: Literal["official", "group"] = "official",
    compression: str = "c23",
    sides: Collection[Split] | None = None,
    spec: ClipSpec | None = None,
    workers: int | None = None,
    seed: int = 0,
    shard_mb: int = 256,
    console: Console | None = None,
) -> Prepared:
    """Cut the faces out of every video of a data set.

    Args:
        data: The data set; see `train.data.layouts` for what is understood.
        out: The folder to write, or to continue.
        layout: Which layout the data set has; `auto` looks.
        split: `official`, or `group` for an own division by groups.
        compression: Of FaceForensics++: `raw`, `c23` or `c40`.
        sides: Prepare these splits only; None for all.
        spec: What the clips look like.
        workers: Processes; None for one a core.
        seed: Of the order of the videos in the shards and of own divisions.
        shard_mb: A shard that has reached so many megabytes is closed.
        console: Where the progress bar goes; standard error by default. It shows in a terminal only.

    Returns:
        Counts and notes; the same is in `prepared.json`.

    Raises:
        LayoutError: The data set is not laid out as expected.
        PrepareError: The output folder holds something else or other settings.
        ValueError: A number is out of its range.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if shard_mb < 1:
        raise ValueError(f"shard_mb must be at least 1, not {shard_mb}")
    spec = spec or ClipSpec()
    dataset = find_videos(data, layout=layout, split=split, compression=compression, seed=seed)
    kept = {"train", "val", "test"} if sides is None else set(sides)
    wanted = _shuffled([video for video in dataset.videos if video.split in kept], seed)
    names = {video.name: _relative(video.path, data) for video in wanted}
    settings = {
        "layout": dataset.layout,
        "split": split,
        "compression": compression,
        "sides": None if sides is None else sorted(sides),
        "seed": seed,
    }
    with PreparedWriter(out, {**settings, "spec": asdict(spec)}, max_bytes=shard_mb * 2**20) as writer:
        todo = []
        for video in wanted:
            record = writer.records.get(names[video.name])
            if record is not None and record.label != label(video):
                raise PrepareError(
                    f"{names[video.name]} was prepared with another label, group or split: the data set has "
                    f"changed; delete {out} and prepare it anew"
                )
            if record is None or record.again:
                todo.append(video)
        try:
            _run(todo, names, spec, writer, workers or usable_cores(), len(wanted), console)
        finally:
            prepared = _summary(out, dataset, [names[video.name] for video in wanted], writer)
            about = {"videos": prepared.videos, "clips": prepared.clips, "skipped": prepared.skipped}
            writer.finish(names.values(), {**about, "notes": list(prepared.notes)})
    return prepared


def _run(
    todo: Sequence[Video],
    names: dict[str, str],
    spec: ClipSpec,
    writer: PreparedWriter,
    workers: int,
    total: int,
    console: Console | None,
) -> None:
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[clips]} clips, {task.fields[skipped]} skipped"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    clips = skipped = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("videos", total=total, completed=total - len(todo), clips=0, skipped=0)
        for video, outcome in _outcomes(todo, spec, workers):
            name = names[video.name]
            if outcome.clips:
                writer.add(video, name, outcome.clips)
            else:
                writer.skip(video, name, outcome.reason, again=outcome.again)
            clips += len(outcome.clips)
            skipped += not outcome.clips
            progress.update(task, advance=1, clips=clips, skipped=skipped)


def _outcomes(videos: Sequence[Video], spec: ClipSpec, workers: int) -> Iterator[tuple[Video, Outcome]]:
    """Cut videos in parallel and give them in their order, so that the same videos make the same shards."""
    left = deque(videos)
    while left:
        with _pool(min(workers, len(left)), spec) as pool:
            running: deque[tuple[Video, Future[Outcome]]] = deque()
            try:
                while left or running:
                    while left and len(running) < 2 * workers:
                        running.append((left[0], pool.submit(_cut, left[0].path)))
                        left.popleft()
                    video, future = running[0]
                    outcome = future.result()
                    running.popleft()
                    yield video, outcome
            except BrokenProcessPool:
                # One of those in flight took its process down, and does not say which: they go on one by one.
                suspects = [video for video, _ in running]
            else:
                return
        for video in suspects:
            yield video, _alone(video.path, spec)


def _alone(path: Path, spec: ClipSpec) -> Outcome:
    with _pool(1, spec) as pool:
        try:
            return pool.submit(_cut, path).result()
        except BrokenProcessPool:
            return Outcome(reason="reading it crashed the process", again=True)


@contextmanager
def _pool(workers: int, spec: ClipSpec) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: neither FFmpeg's nor onnxruntime's threads survive a fork.
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(spec, lifeline))
    try:
        yield pool
    finally:
        # Done or given up: nobody waits for a worker to finish a video that nobody wants.
        held.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


_worker: tuple[ClipSpec, Detector] | None = None


def _begin(spec: ClipSpec, lifeline: connection.Connection) -> None:
    """Set a worker process up: one thread for each, the network loaded once."""
    global _worker
    # Ctrl-C goes to the whole group; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    cv2.setNumThreads(1)
    _worker = spec, Detector(detector_infer("onnxruntime", threads=1))


def _end_with(lifeline: connection.Connection) -> None:
    # Nothing is ever sent: readable means that the parent closed its end, or was killed and could not.
    connection.wait([lifeline])
    os._exit(1)


def _cut(path: Path) -> Outcome:
    assert _worker is not None, "the initialiser ran"
    spec, detector = _worker
    try:
        return Outcome(clips=tuple(cut_clips(path, spec, FaceFinder(detector))))
    except SourceError as error:
        return Outcome(reason=error.reason, again=True)
    except NoClip as error:
        return Outcome(reason=str(error))
    except Exception as error:  # noqa: BLE001 - one strange video in a hundred thousand must not end the run
        return Outcome(reason=f"{type(error).__name__}: {error}", again=True)


def _shuffled(videos: Sequence[Video], seed: int) -> list[Video]:
    # Mixed, as shards are read in order: a shard of one class alone would be no shuffled batch.
    return sorted(videos, key=lambda video: hashlib.sha256(f"{seed}:{video.name}".encode()).digest())


def _relative(path: Path, data: Path) -> str:
    root = data if data.is_dir() else data.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _summary(out: Path, dataset: Dataset, names: Sequence[str], writer: PreparedWriter) -> Prepared:
    records = [writer.records[name] for name in names if name in writer.records]
    return Prepared(
        folder=out,
        videos=len(names),
        clips=sum(len(record.rows) for record in records),
        skipped=sum(bool(record.reason) for record in records),
        notes=dataset.notes,
    )
