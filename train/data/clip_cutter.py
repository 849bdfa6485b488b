"""Cuts face clips out of a video, with the reader, finder and crop that the runtime uses.

The crops are made by the code that makes them live, so a model trained on them meets nothing new later. What
is kept is what a buffer would hold: consecutive samples of one face without a gap.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.errors import EndOfStream, SourceError
from streams.faces.crop import crop_face
from streams.faces.finder import Face, Finder
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import parse_source

# A file is read as fast as it is taken; who waits this long waits for a disk that is gone.
STALLED_S = 60.0


class NoClip(Exception):
    """Says why a video that can be read gives no clip."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Says what the clips of a prepared data set look like.

    Args:
        size: Side of the crops in pixels.
        margin: Side of the crop over the height of the face box.
        sample_hz: Samples per second of media time.
        frames: Samples per clip.
        min_frames: A video without a run of `frames` gives one clip of its longest run, if it has this many.
        per_video: At most so many clips, spread over the video; None for all that fit side by side.
        faces: At most so many faces at any moment, the most prominent first: which face of a forged video is
            forged is not known, and a second one is often real.
        seconds: How much of a video to read, from its start; None for all of it.
        quality: Of the JPEGs, 1..100.

    Raises:
        ValueError: A value is out of its range.
    """

    size: int = 224
    margin: float = 1.3
    sample_hz: float = 8.0
    frames: int = 16
    min_frames: int = 8
    per_video: int | None = 4
    faces: int = 1
    seconds: float | None = 60.0
    quality: int = 95

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
        if self.faces < 1:
            raise ValueError(f"faces must be at least 1, not {self.faces}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, not {self.seconds}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be within 1..100, not {self.quality}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Holds one face in one sample.

    Args:
        sample: Number of the sample in the video; consecutive numbers are neighbours in time, a gap skips
            one.
        pts_s: Its media time.
        height: Of the face box, in pixels of the video.
        jpeg: The crop.
    """

    sample: int
    pts_s: float
    height: float
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class FaceClip:
    """Holds consecutive crops of one face.

    Args:
        jpegs: The crops, oldest first.
        sample_hz: Their measured rate.
        height: Median height of the face box in pixels of the video.
    """

    jpegs: tuple[bytes, ...]
    sample_hz: float
    height: float


def cut_clips(path: Path, spec: ClipSpec, finder: Finder) -> list[FaceClip]:
    """Cut the clips out of a video file.

    Args:
        path: The video.
        spec: What they should look like.
        finder: A fresh one; it remembers the faces of a video.

    Returns:
        At least one clip, in order of time.

    Raises:
        SourceError: The file cannot be read.
        NoClip: It can, but no face is in it for long enough.
    """
    faces: dict[int, list[Sighting]] = defaultdict(list)
    number = analysed = 0
    start_s: float | None = None
    source = parse_source(str(path.resolve()))
    with open_reader(source, sample_hz=spec.sample_hz, on_event=lambda event: None) as reader:
        while True:
            try:
                frame = reader.next(STALLED_S)
            except EndOfStream as end:
                # What was read of a file that breaks off later is good; a fault of ours is one at any time.
                if end.__cause__ is not None and not (analysed and isinstance(end.__cause__, SourceError)):
                    raise end.__cause__ from None
                break
            if frame is None:
                raise NoClip(f"reading stopped for {STALLED_S:.0f} s")
            start_s = frame.pts_s if start_s is None else start_s
            if spec.seconds is not None and frame.pts_s - start_s >= spec.seconds:
                break
            number += 2 if frame.gap else 1
            analysed += 1
            for face in finder.find(frame):
                faces[face.id].append(_sighting(frame, face, number, spec))
    if not faces:
        raise NoClip("no face found")
    chosen = choose(faces, spec)
    if not chosen:
        longest = max(len(run) for sightings in faces.values() for run in runs(sightings))
        raise NoClip(f"no face for {spec.min_frames} samples in a row (longest: {longest})")
    return [_clip(window) for window in chosen]


def _sighting(frame: Frame, face: Face, number: int, spec: ClipSpec) -> Sighting:
    crop = crop_face(frame.image, face.box, size=spec.size, margin=spec.margin)
    return Sighting(sample=number, pts_s=frame.pts_s, height=face.box[3], jpeg=encode(crop, spec.quality))


def encode(crop: NDArray[np.uint8], quality: int) -> bytes:
    """Encode a crop as JPEG, colours at full resolution.

    Args:
        crop: (H, W, 3) RGB uint8.
        quality: 1..100.

    Returns:
        The file's bytes.
    """
    # Halved colour would be one more compression that live crops never went through.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def runs(sightings: Sequence[Sighting]) -> list[list[Sighting]]:
    """Cut the sightings of a face where a sample is missing.

    Args:
        sightings: In order of time.

    Returns:
        The uninterrupted runs, in order of time.
    """
    found: list[list[Sighting]] = []
    for sighting in sightings:
        if not found or sighting.sample != found[-1][-1].sample + 1:
            found.append([])
        found[-1].append(sighting)
    return found


def choose(faces: Mapping[int, Sequence[Sighting]], spec: ClipSpec) -> list[list[Sighting]]:
    """Choose what becomes a clip.

    Faces come in order of prominence (time seen times height); one that overlaps in time with `spec.faces`
    others before it is left out, and so is one less than half as high as the most prominent.

    Args:
        faces: Id -> sightings in order of time.
        spec: How long and how many.

    Returns:
        Windows of consecutive sightings, in order of time.
    """
    kept = _prominent(faces, spec.faces)
    found = [run for sightings in kept for run in runs(sightings)]
    windows = [window for run in found for window in _side_by_side(run, spec.frames)]
    if not windows:
        longest = max(found, key=len, default=[])
        windows = [longest] if len(longest) >= spec.min_frames else []
    windows.sort(key=lambda window: window[0].sample)
    if spec.per_video is not None and len(windows) > spec.per_video:
        # The middle of each of `per_video` equal parts.
        windows = [windows[(2 * i + 1) * len(windows) // (2 * spec.per_video)] for i in range(spec.per_video)]
    return windows


def _prominent(faces: Mapping[int, Sequence[Sighting]], at_once: int) -> list[Sequence[Sighting]]:
    def height(sightings: Iterable[Sighting]) -> float:
        return statistics.median(sighting.height for sighting in sightings)

    ranked = sorted(faces.values(), key=lambda sightings: len(sightings) * height(sightings), reverse=True)
    kept: list[Sequence[Sighting]] = []
    for sightings in ranked:
        first, last = sightings[0].sample, sightings[-1].sample
        meanwhile = sum(other[0].sample <= last and first <= other[-1].sample for other in kept)
        if meanwhile < at_once and (not kept or 2 * height(sightings) >= height(kept[0])):
            kept.append(sightings)
    return kept


def _side_by_side(run: list[Sighting], frames: int) -> list[list[Sighting]]:
    count = len(run) // frames
    # What is left over is shared between both ends, where faces enter and leave.
    start = (len(run) - count * frames) // 2
    return [run[start + i * frames : start + (i + 1) * frames] for i in range(count)]


def _clip(window: Sequence[Sighting]) -> FaceClip:
    span_s = window[-1].pts_s - window[0].pts_s
    return FaceClip(
        jpegs=tuple(sighting.jpeg for sighting in window),
        sample_hz=(len(window) - 1) / span_s if span_s > 0 else 0.0,
        height=statistics.median(sighting.height for sighting in window),
    )
