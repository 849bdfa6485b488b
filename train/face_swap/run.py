"""Face swaps of the real videos of manifests, as by `unmask train swap`.

    made = make_swaps([Path("webcams.csv")], Path("swaps"), SwapConfig())
    print(made.manifest, made.forged, "forged videos")

An interrupted run is resumed by the next one: generators and videos that are complete are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from runtime.engines.factory import detector_infer
from runtime.files import atomic_path, write_atomically
from streams.faces.detector import Detector
from train.data.splits import Split
from train.data.videos import Video
from train.face_swap.alignment import AlignedFace, FaceAligner, Image
from train.face_swap.autoencoder import Autoencoder
from train.face_swap.blending import paste_face
from train.face_swap.config import SwapConfig
from train.face_swap.fitting import draw, fit_generator
from train.face_swap.forged_set import (
    ForgedPair,
    ForgedSet,
    ForgeryError,
    VideoSkipped,
    check_faces,
    file_name,
    finish,
    open_folder,
    real_videos,
    unreadable_is_skipped,
)
from train.face_swap.plan import GeneratorPlan, choose_decoder, choose_sources, plan_generators
from train.face_swap.videos import read_frames, video_rate

GENERATOR_FOLDER = "generators"
MAX_FACES = 150
"""Maximum number of faces of each video that a generator is fitted to."""
MIN_FACE_SHARE = 0.8
"""Minimum share of a video's frames with a face."""


@dataclass(frozen=True, kw_only=True)
class AlignedVideo:
    """Faces of a video.

    Args:
        video: The video.
        rate: Frames per second.
        faces: Number of a frame -> its face; frames without a face are missing.
        patches: Aligned faces, RGB uint8 `(N, size, size, 3)`.
    """

    video: Video
    rate: int
    faces: dict[int, AlignedFace]
    patches: NDArray[np.uint8]


def make_swaps(
    manifests: Sequence[Path],
    out: Path,
    config: SwapConfig,
    *,
    split: Literal[Split, "all"] = "train",
    console: Console | None = None,
) -> ForgedSet:
    """Fit generators to the real faces of manifests and write forged videos beside their originals.

    Args:
        manifests: CSV files of videos; those labelled fake are left out.
        out: Folder to write or to resume.
        config: The settings.
        split: Split to use, or `all`, each with generators of its own.
        console: Console of the progress lines; standard error by default.

    Returns:
        The manifest and counts.

    Raises:
        LayoutError: A manifest cannot be read.
        ForgeryError: There are too few videos or faces, or the folder has other settings.
    """
    console = console or Console(stderr=True)
    plans = plan_generators(real_videos(manifests, split), config)
    if not plans:
        raise ForgeryError(manifests[0], f"has no two real people in split {split}", "give more real videos")
    # The number of threads does not change what is made.
    settings = {name: value for name, value in asdict(config).items() if name != "threads"}
    open_folder(out, settings, {plan.name: plan.videos for plan in plans}, folders=[GENERATOR_FOLDER])
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    detector = Detector(detector_infer("onnxruntime", threads=config.threads))
    rows: list[dict[str, str]] = []
    skipped: dict[Path, str] = {}
    for plan in plans:
        made = _GeneratorRun(plan, out, config, detector, console)
        rows += made.run()
        skipped |= made.skipped
    return finish(out, rows, skipped)


class _GeneratorRun:
    """Alignment, fit and forging of one generator."""

    def __init__(
        self, plan: GeneratorPlan, out: Path, config: SwapConfig, detector: Detector, console: Console
    ) -> None:
        self._plan, self._out, self._config = plan, out, config
        self._detector, self._console = detector, console
        self.skipped: dict[Path, str] = {}

    def run(self) -> list[dict[str, str]]:
        """Make what is missing and return the rows of the manifest."""
        record = self._out / GENERATOR_FOLDER / f"{self._plan.name}.json"
        if record.exists():
            stored = json.loads(record.read_text(encoding="utf-8"))
            self.skipped = {Path(video["path"]): video["reason"] for video in stored["skipped"]}
            return list(stored["rows"])
        aligned = []
        for video in self._plan.videos:
            try:
                aligned.append(self._aligned(video))
            except VideoSkipped as reason:
                self.skipped[video.path] = str(reason)
        groups = [found.video.group for found in aligned]
        rows: list[dict[str, str]] = []
        if len(set(groups)) > 1:
            sides = [float(np.median([face.side for face in found.faces.values()])) for found in aligned]
            sources = choose_sources(groups, sides, self._config.sources)
            model = self._generator(aligned, sources)
            for number, found in enumerate(aligned):
                random = np.random.default_rng([self._plan.seed, number])
                decoder = choose_decoder(number, groups, sources, self._config.swap_share, random)
                source = aligned[sources[decoder]].video if decoder < len(sources) else None
                rows += self._forged(model, found, decoder, source)
        skipped = [{"path": str(path), "reason": reason} for path, reason in self.skipped.items()]
        content = json.dumps({"rows": rows, "skipped": skipped}, indent=1)
        write_atomically(record, content)
        return rows

    def _aligned(self, video: Video) -> AlignedVideo:
        """Find the faces of a video; raise `VideoSkipped` if there are too few."""
        aligner, faces, patches, total = FaceAligner(self._detector), {}, [], 0
        with unreadable_is_skipped():
            rate = video_rate(video.path)
            for number, rgb in self._frames(video.path, rate):
                total += 1
                if (face := aligner.align(rgb)) is not None:
                    faces[number] = face
                    patches.append(face.cut(rgb, self._plan.design.size))
        check_faces(len(faces), total, min_faces=self._config.min_faces, min_share=MIN_FACE_SHARE)
        step = -(-len(patches) // MAX_FACES)
        return AlignedVideo(video=video, rate=rate, faces=faces, patches=np.stack(patches[::step]))

    def _frames(self, path: Path, rate: int) -> Iterator[tuple[int, Image]]:
        return read_frames(path, rate, seconds=self._config.seconds, max_side=self._config.max_side)

    def _generator(self, aligned: Sequence[AlignedVideo], sources: Sequence[int]) -> Autoencoder:
        """Load the generator, or fit and store it."""
        path = self._out / GENERATOR_FOLDER / f"{self._plan.name}.safetensors"
        design = self._plan.design
        if path.exists():
            model = Autoencoder(design, len(sources) + 1)
            try:
                model.load_state_dict(load_file(path))
            except (SafetensorError, RuntimeError) as error:
                raise ForgeryError(
                    path, "is not a generator of this run", "delete it and run again"
                ) from error
            return model.eval()
        steps = count(1)

        def report(loss: float) -> None:
            step = next(steps)
            if step in (1, self._config.steps) or step % 500 == 0:
                self._console.print(f"{self._plan.name}: step {step}, loss {loss:.4f}")

        model = fit_generator(
            design,
            [found.patches for found in aligned],
            sources,
            self._config,
            seed=self._plan.seed,
            progress=report,
        )
        with atomic_path(path) as draft:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, draft)
        return model

    def _changed(self, rgb: Image, face: AlignedFace | None, model: Autoencoder, decoder: int) -> Image:
        """Return a frame with the face that a decoder draws; one without a face stays as it is."""
        changed = rgb.copy()
        if face is not None:
            drawn = draw(model, face.cut(rgb, self._plan.design.size), decoder)
            paste_face(changed, face, drawn, self._plan.design)
        return changed

    def _forged(
        self, model: Autoencoder, found: AlignedVideo, decoder: int, source: Video | None
    ) -> list[dict[str, str]]:
        """Write a forged video and its original, unless both exist; return their rows."""
        video = found.video
        pair = ForgedPair(
            name=f"{self._plan.name}_{file_name(video)}",
            video=video,
            method=f"{'reconstruction' if source is None else 'swap'}-{self._plan.design.name}",
            source="" if source is None else source.group,
            data_set="swaps",
        )
        if not pair.exists(self._out):
            with pair.writers(self._out, found.rate, self._config.crf) as (real, fake):
                for number, rgb in self._frames(video.path, found.rate):
                    real.write(number, rgb)
                    fake.write(number, self._changed(rgb, found.faces.get(number), model, decoder))
            self._console.print(f"{pair.name}: written")
        return pair.rows()
