"""Extraction of face clips from a video, with the reader, face finder and crop of the live pipeline.

    clips = cut_clips(Path("video.mp4"), ClipSpec(), FaceFinder(detector))

Training crops are made by the same code as live crops. Like the rolling window of the live pipeline, a clip
contains consecutive samples of one face without a gap.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streams.errors import EndOfStream, SourceError
from streams.faces.context import cut_context
from streams.faces.crop import crop_face
from streams.faces.finder import Face, Finder
from streams.features.temporal_residuals import ResidualMeter, Residuals
from streams.input.continuity import Spacing
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import file_source
from train.data.crops import encode_jpeg

READ_TIMEOUT_S = 60.0
"""Time without a frame after which a file counts as unreadable, for example on a disk that was removed."""


class NoClip(Exception):
    """A readable video without a usable face clip; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Form of the clips of a prepared data set.

    Args:
        size: Side of the crops in pixels.
        margin: Side of the crop as a multiple of the face box height.
        sample_hz: Samples per second of media time.
        frames: Samples per clip.
        min_frames: Minimum samples of a shorter clip, which is cut only if a video has no clip of `frames`.
        per_video: Maximum number of clips, spread over the video; None for all that fit without overlap.
        max_faces: Maximum number of faces at any moment; the most prominent ones are used. Data sets do not
            state which face of a video is fake, and a second face is often real.
        max_seconds: Media time to read from the start of a video; None for the whole video.
        jpeg_quality: Quality of the JPEG files, 1..100.

    Raises:
        ValueError: A value is out of its range.
    """

    size: int = 224
    margin: float = 1.3
    sample_hz: float = 8.0
    frames: int = 16
    min_frames: int = 8
    per_video: int | None = 4
    max_faces: int = 1
    max_seconds: float | None = 60.0
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"size must be at least 16 px, not {self.size}")
        if not 0.5 <= self.margin <= 4:
            raise ValueError(f"margin must be within 0.5..4, not {self.margin}")
        if not 0 < self.sample_hz <= 120:
            raise ValueError(f"sample_hz must be within 0..120, not {self.sample_hz}")
        if not 1 <= self.min_frames <= self.frames <= 100:
            raise ValueError(
                f"1 <= min_frames <= frames <= 100 must hold, not {self.min_frames}, {self.frames}"
            )
        if self.per_video is not None and self.per_video < 1:
            raise ValueError(f"per_video must be at least 1, not {self.per_video}")
        if self.max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, not {self.max_faces}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, not {self.max_seconds}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be within 1..100, not {self.jpeg_quality}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSample:
    """One face in one sample of a video.

    Args:
        sample: Number of the sample; consecutive numbers are consecutive in time, and a gap skips a number.
        pts_s: Media time in seconds.
        height: Height of the face box in pixels of the video.
        jpeg: Crop as JPEG.
        residuals: Temporal residuals, as the live pipeline measures them.
    """

    sample: int
    pts_s: float
    height: float
    jpeg: bytes
    residuals: Residuals


@dataclass(frozen=True, kw_only=True)
class FaceClip:
    """Consecutive crops of one face.

    Args:
        jpegs: Crops as JPEG, oldest first.
        sample_hz: Measured samples per second.
        height: Median height of the face box in pixels of the video.
        residuals: Temporal residuals, float32 `(len(jpegs), NUM_RESIDUALS)`. They are measured on the frames
            themselves, because JPEG would change them.
    """

    jpegs: tuple[bytes, ...]
    sample_hz: float
    height: float
    residuals: NDArray[np.float32]


def cut_clips(path: Path, spec: ClipSpec, finder: Finder) -> list[FaceClip]:
    """Extract the face clips of a video file.

    Args:
        path: The video.
        spec: Form of the clips.
        finder: A new face finder, because it tracks the faces of one video.

    Returns:
        At least one clip, in order of time.

    Raises:
        SourceError: The file cannot be read.
        NoClip: No face is visible for long enough.
    """
    faces: dict[int, list[FaceSample]] = defaultdict(list)
    meters: dict[int, ResidualMeter] = defaultdict(ResidualMeter)
    number = analysed = segment = 0
    last_s = 0.0
    # No sample is missing within a clip: an interval that a live stream would bridge separates two clips.
    spacing = Spacing(spec.sample_hz)
    start_s: float | None = None
    source = file_source(path)
    with open_reader(source, sample_hz=spec.sample_hz, on_event=lambda event: None) as reader:
        while True:
            try:
                frame = reader.next(READ_TIMEOUT_S)
            except EndOfStream as end:
                # Frames before a broken part of the file are used; errors other than SourceError are bugs.
                if end.__cause__ is not None and not (analysed and isinstance(end.__cause__, SourceError)):
                    raise end.__cause__ from None
                break
            if frame is None:
                raise NoClip(f"reading stopped for {READ_TIMEOUT_S:.0f} s")
            start_s = frame.pts_s if start_s is None else start_s
            if spec.max_seconds is not None and frame.pts_s - start_s >= spec.max_seconds:
                break
            follows = frame.segment == segment and spacing.is_regular(frame.pts_s - last_s)
            number += 1 if follows else 2
            segment, last_s = frame.segment, frame.pts_s
            analysed += 1
            for face in finder.find(frame):
                meter, samples = meters[face.id], faces[face.id]
                if samples and samples[-1].sample != number - 1:
                    meter.clear()
                samples.append(_face_sample(frame, face, number, spec, meter))
    if not faces:
        raise NoClip("no face found")
    chosen = choose_windows(faces, spec)
    if not chosen:
        longest = max(len(run) for samples in faces.values() for run in consecutive_runs(samples))
        raise NoClip(f"no face for {spec.min_frames} samples in a row (longest: {longest})")
    return [_clip(window) for window in chosen]


def _face_sample(frame: Frame, face: Face, number: int, spec: ClipSpec, meter: ResidualMeter) -> FaceSample:
    crop = crop_face(frame.image, face.box, size=spec.size, margin=spec.margin)
    return FaceSample(
        sample=number,
        pts_s=frame.pts_s,
        height=face.box[3],
        jpeg=encode_jpeg(crop, spec.jpeg_quality),
        residuals=meter.measure(cut_context(frame, face.box)),
    )


def consecutive_runs(samples: Sequence[FaceSample]) -> list[list[FaceSample]]:
    """Split the samples of a face where a sample is missing.

    Args:
        samples: Samples of one face, in order of time.

    Returns:
        Runs without a gap, in order of time.
    """
    found: list[list[FaceSample]] = []
    for sample in samples:
        if not found or sample.sample != found[-1][-1].sample + 1:
            found.append([])
        found[-1].append(sample)
    return found


def choose_windows(faces: Mapping[int, Sequence[FaceSample]], spec: ClipSpec) -> list[list[FaceSample]]:
    """Choose the samples of each clip.

    Faces are ranked by prominence (time visible times height). A face is skipped if `spec.max_faces` more
    prominent faces are visible at the same time, or if it is less than half as high as the most prominent
    one.

    Args:
        faces: Track id -> its samples in order of time.
        spec: Form and number of the clips.

    Returns:
        Windows of consecutive samples, in order of time.
    """
    kept = _prominent(faces, spec.max_faces)
    runs = [run for samples in kept for run in consecutive_runs(samples)]
    windows = [window for run in runs for window in _adjacent_windows(run, spec.frames)]
    if not windows:
        longest = max(runs, key=len, default=[])
        windows = [longest] if len(longest) >= spec.min_frames else []
    windows.sort(key=lambda window: window[0].sample)
    if spec.per_video is not None and len(windows) > spec.per_video:
        # The middle of each of `per_video` equal parts.
        windows = [windows[(2 * i + 1) * len(windows) // (2 * spec.per_video)] for i in range(spec.per_video)]
    return windows


def _prominent(faces: Mapping[int, Sequence[FaceSample]], max_faces: int) -> list[Sequence[FaceSample]]:
    def height(samples: Iterable[FaceSample]) -> float:
        return statistics.median(sample.height for sample in samples)

    ranked = sorted(faces.values(), key=lambda samples: len(samples) * height(samples), reverse=True)
    kept: list[Sequence[FaceSample]] = []
    for samples in ranked:
        first, last = samples[0].sample, samples[-1].sample
        overlapping = sum(other[0].sample <= last and first <= other[-1].sample for other in kept)
        if overlapping < max_faces and (not kept or 2 * height(samples) >= height(kept[0])):
            kept.append(samples)
    return kept


def _adjacent_windows(run: list[FaceSample], frames: int) -> list[list[FaceSample]]:
    count = len(run) // frames
    # Leftover samples are dropped at both ends, where faces enter and leave.
    start = (len(run) - count * frames) // 2
    return [run[start + i * frames : start + (i + 1) * frames] for i in range(count)]


def _clip(window: Sequence[FaceSample]) -> FaceClip:
    span_s = window[-1].pts_s - window[0].pts_s
    return FaceClip(
        jpegs=tuple(sample.jpeg for sample in window),
        sample_hz=(len(window) - 1) / span_s if span_s > 0 else 0.0,
        height=statistics.median(sample.height for sample in window),
        residuals=np.stack([sample.residuals for sample in window]),
    )
