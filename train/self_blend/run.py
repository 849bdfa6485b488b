"""Self-blended videos of the real videos of manifests, as by `unmask train self-blend`.

    made = make_self_blends([Path("webcams.csv")], Path("self-blends"), SelfBlendConfig())
    print(made.manifest, made.forged, "forged videos")

An interrupted run is resumed by the next one: videos that are complete are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from rich.console import Console

from runtime.engines.factory import detector_infer
from streams.faces.detector import Detector
from train.data.splits import Split
from train.data.worker_pool import ordered_results
from train.face_swap.alignment import FaceAligner, Image
from train.face_swap.forged_set import (
    ForgedSet,
    ForgeryError,
    VideoSkipped,
    check_faces,
    finish,
    not_writable,
    open_folder,
    real_videos,
    unreadable_is_skipped,
)
from train.face_swap.videos import read_part, video_rate
from train.self_blend.config import SelfBlendConfig
from train.self_blend.perturbation import FacePerturber, Perturbation
from train.self_blend.plan import Recording, SelfBlendTask, plan_self_blends

MIN_FACE_SHARE = 0.9
"""Minimum share of a video's frames with a face; the others of the forged video are real."""


def make_self_blends(
    manifests: Sequence[Path],
    out: Path,
    config: SelfBlendConfig,
    *,
    split: Literal[Split, "all"] = "train",
    console: Console | None = None,
) -> ForgedSet:
    """Write self-blended videos of the real videos of manifests beside their re-encoded originals.

    Args:
        manifests: CSV files of videos; those labelled fake are left out.
        out: Folder to write or to resume.
        config: The settings.
        split: Split to use, or `all`.
        console: Console of the progress lines; standard error by default.

    Returns:
        The manifest and counts.

    Raises:
        LayoutError: A manifest cannot be read.
        ForgeryError: There is no video with a face, or the folder has other settings or cannot be written.
    """
    console = console or Console(stderr=True)
    videos = real_videos(manifests, split)
    if not videos:
        raise ForgeryError(
            manifests[0], f"has no real video in split {split}", "give more real videos or another --split"
        )
    # The number of processes does not change what is made.
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    open_folder(out, settings, {"real": videos})
    tasks = plan_self_blends(videos, config)
    missing = [task for task in tasks if not task.pair.exists(out)]
    results = ordered_results(
        _forge,
        missing,
        workers=config.workers,
        crashed="reading it crashed the process",
        begin=_begin,
        args=(out, config),
    )
    skipped: dict[Path, str] = {}
    made = len(tasks) - len(missing)
    for number, (task, reason) in enumerate(zip(missing, results, strict=True), made + 1):
        if reason:
            skipped[task.pair.video.path] = reason
        console.print(
            f"{number}/{len(tasks)} {task.pair.name}: {reason or 'written'}", markup=False, highlight=False
        )
    rows = [row for task in tasks if task.pair.exists(out) for row in task.pair.rows()]
    return finish(out, rows, skipped)


_worker: tuple[Path, SelfBlendConfig, Detector] | None = None


def _begin(out: Path, config: SelfBlendConfig) -> None:
    """Set up a worker process with one thread and the face detector loaded once."""
    global _worker
    cv2.setNumThreads(1)
    _worker = out, config, Detector(detector_infer("onnxruntime", threads=1))


def _forge(task: SelfBlendTask) -> str:
    """Write a pair of videos; return why there is none, empty if there is."""
    assert _worker is not None, "the initialiser ran"
    out, config, detector = _worker
    try:
        _write_pair(task, out, config, FaceAligner(detector))
    except VideoSkipped as skipped:
        return str(skipped)
    except OSError as error:
        raise not_writable(out, error) from None
    except Exception as error:  # noqa: BLE001 - one bad video must not end the run
        return f"{type(error).__name__}: {error}"
    return ""


def _write_pair(task: SelfBlendTask, out: Path, config: SelfBlendConfig, aligner: FaceAligner) -> None:
    rng = np.random.default_rng(task.key)
    recording = Recording.draw(rng, from_start=task.from_start)
    perturber = FacePerturber(Perturbation.draw(rng), rng)
    path = task.pair.video.path
    with unreadable_is_skipped():
        rate = video_rate(path)
    frames = faces = 0
    with task.pair.writers(out, rate, recording.crf) as (real, fake):
        for number, rgb in _frames(path, rate, recording, config.seconds):
            frames += 1
            real.write(number, rgb)
            if (face := aligner.align(rgb)) is not None:
                faces += 1
                perturber.blend(rgb, face)
            fake.write(number, rgb)
        # The writers leave no file if this raises.
        check_faces(faces, frames, min_faces=config.min_faces, min_share=MIN_FACE_SHARE)


def _frames(path: Path, rate: int, recording: Recording, seconds: float) -> Iterator[tuple[int, Image]]:
    with unreadable_is_skipped():
        yield from read_part(
            path, rate, start_s=recording.start_s, seconds=seconds, max_side=recording.max_side
        )
