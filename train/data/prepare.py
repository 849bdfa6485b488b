"""Preparation of a data set, as by `unmask train prepare`: face clips of all its videos in tar shards.

    prepared = prepare(Path("FaceForensics++"), Path("clips"), workers=8)
    print(prepared.clips, "clips,", prepared.skipped, "videos skipped")

An interrupted run is resumed by the next one. After a complete run, the next one retries unreadable videos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
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
from streams.features.temporal_residuals import VERSION as RESIDUALS_VERSION
from train.data.clip_cutter import ClipSpec, FaceClip, NoClip, cut_clips
from train.data.layouts import Layout, VideoSet, find_videos
from train.data.shards import PreparedWriter, PrepareError, label
from train.data.splits import Split
from train.data.videos import Video
from train.data.worker_pool import ordered_results

__all__ = ["ClipSpec", "PrepareError", "Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Result of a preparation.

    Args:
        folder: Folder of the prepared data set.
        videos: Number of videos.
        clips: Number of clips.
        skipped: Number of videos without a clip, listed in `skipped.csv`.
        notes: Notes for the reader of results on this data set.
    """

    folder: Path
    videos: int
    clips: int
    skipped: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one video: clips, or the reason why there is none.

    Args:
        clips: Clips in order of time.
        reason: Reason in one line; empty if there are clips.
        retry: Whether the next run should try the video again.
    """

    clips: tuple[FaceClip, ...] = ()
    reason: str = ""
    retry: bool = False


def prepare(
    data: Path,
    out: Path,
    *,
    layout: Layout = "auto",
    split: Literal["official", "group"] = "official",
    compression: str = "c23",
    splits: Collection[Split] | None = None,
    spec: ClipSpec | None = None,
    workers: int | None = None,
    seed: int = 0,
    shard_mb: int = 256,
    console: Console | None = None,
) -> Prepared:
    """Extract the face clips of every video of a data set.

    Args:
        data: The data set, in a layout of `train.data.layouts`.
        out: Folder to write or to resume.
        layout: Layout of the data set; `auto` detects it.
        split: `official`, or `group` for a new division by groups.
        compression: Compression of FaceForensics++: `raw`, `c23` or `c40`.
        splits: Splits to prepare; None for all.
        spec: Form of the clips.
        workers: Number of processes; None for one per core.
        seed: Seed of the order of the videos in the shards and of a new division.
        shard_mb: Size in megabytes at which a shard is closed.
        console: Console for the progress bar, which is shown in a terminal only; standard error by default.

    Returns:
        Counts and notes, as in `prepared.json`.

    Raises:
        LayoutError: The data set is not laid out as expected.
        PrepareError: The output folder has other content or other settings.
        ValueError: A number is out of its range.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if shard_mb < 1:
        raise ValueError(f"shard_mb must be at least 1, not {shard_mb}")
    spec = spec or ClipSpec()
    dataset = find_videos(data, layout=layout, split=split, compression=compression, seed=seed)
    kept = {"train", "val", "test"} if splits is None else set(splits)
    wanted = _shuffled([video for video in dataset.videos if video.split in kept], seed)
    names = {video.name: _relative(video.path, data) for video in wanted}
    settings = {
        "layout": dataset.layout,
        "split": split,
        "compression": compression,
        "splits": None if splits is None else sorted(splits),
        "seed": seed,
        "residuals": RESIDUALS_VERSION,
    }
    with PreparedWriter(out, {**settings, "spec": asdict(spec)}, max_bytes=shard_mb * 2**20) as writer:
        todo = []
        for video in wanted:
            record = writer.records.get(names[video.name])
            if record is not None and record.label != label(video):
                raise PrepareError(
                    f"{names[video.name]} was prepared with another label, group or split: the data set has "
                    f"changed; delete {out} and prepare it again"
                )
            if record is None or record.retry:
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
                writer.skip(video, name, outcome.reason, retry=outcome.retry)
            clips += len(outcome.clips)
            skipped += not outcome.clips
            progress.update(task, advance=1, clips=clips, skipped=skipped)


def _outcomes(videos: Sequence[Video], spec: ClipSpec, workers: int) -> Iterator[tuple[Video, Outcome]]:
    """Process videos in parallel and yield them in order, so that shards are reproducible."""
    outcomes = ordered_results(
        _cut,
        [video.path for video in videos],
        workers=workers,
        crashed=Outcome(reason="reading it crashed the process", retry=True),
        begin=_begin,
        args=(spec,),
    )
    return zip(videos, outcomes, strict=True)


_worker: tuple[ClipSpec, Detector] | None = None


def _begin(spec: ClipSpec) -> None:
    """Set up a worker process with one thread and the face detector loaded once."""
    global _worker
    cv2.setNumThreads(1)
    _worker = spec, Detector(detector_infer("onnxruntime", threads=1))


def _cut(path: Path) -> Outcome:
    assert _worker is not None, "the initialiser ran"
    spec, detector = _worker
    try:
        return Outcome(clips=tuple(cut_clips(path, spec, FaceFinder(detector))))
    except SourceError as error:
        return Outcome(reason=error.reason, retry=True)
    except NoClip as error:
        return Outcome(reason=str(error))
    except Exception as error:  # noqa: BLE001 - one bad video must not end the run
        return Outcome(reason=f"{type(error).__name__}: {error}", retry=True)


def _shuffled(videos: Sequence[Video], seed: int) -> list[Video]:
    # Shards are read in order, so classes have to be mixed.
    return sorted(videos, key=lambda video: hashlib.sha256(f"{seed}:{video.name}".encode()).digest())


def _relative(path: Path, data: Path) -> str:
    root = data if data.is_dir() else data.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _summary(out: Path, dataset: VideoSet, names: Sequence[str], writer: PreparedWriter) -> Prepared:
    records = [writer.records[name] for name in names if name in writer.records]
    return Prepared(
        folder=out,
        videos=len(names),
        clips=sum(len(record.rows) for record in records),
        skipped=sum(bool(record.reason) for record in records),
        notes=dataset.notes,
    )
