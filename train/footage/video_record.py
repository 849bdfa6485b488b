"""Record of one scanned video: score, alarms, appearance of its face, image quality of its windows."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

import av
import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.messages import SCORED_STATES, FaceState
from runtime.pipeline.scan_result import ScanResult
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from streams.faces.crop import Box
from streams.faces.finder import Face
from streams.features.picture_quality import BLOCK, measure_blockiness, measure_quality
from streams.input.frame import Frame
from train.footage.appearance import Appearance, measure_appearance

# The appearance of a face is measured in every n-th of its samples.
APPEARANCE_EVERY = 8
# Every n-th verdict on a face is kept with its image quality: two a second at 8 Hz.
WINDOW_EVERY = 4
# Samples over which the quality of a window is the median: two seconds at 8 Hz.
QUALITY_SAMPLES = 16


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Verdict on one window, with the median of each measure of quality over its samples.

    Args:
        p_fake: Calibrated probability of a fake, 0..1.
        reason: Why there was no decision; None if there was.
        face_height: Height of the face in pixels of the frame.
        sharpness: See `FaceQuality`.
        noise: See `FaceQuality`.
        brightness: See `FaceQuality`.
        contrast: See `FaceQuality`.
        blockiness: See `measure_blockiness`; 1 where the format of the frame does not allow it.
        yaw: Absolute yaw in degrees; see `streams.faces.detector.Detection`.
        roll: Absolute roll in degrees.
    """

    p_fake: float
    reason: str | None
    face_height: float
    sharpness: float
    noise: float
    brightness: float
    contrast: float
    blockiness: float
    yaw: float
    roll: float


class VideoRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Result of scanning one video with one model.

    Args:
        state: State of the scan; only `scored` and `uncertain` have a score.
        p_fake: Calibrated probability of a fake, 0..1.
        seconds: Analysed seconds.
        alarms: Number of times that a face entered the state `fake`, as `unmask monitor` would report it.
        first_alarm_s: Analysed seconds until the first alarm; None without one.
        verdicts: Number of verdicts that are not `warming`.
        fake: Number of those that are `fake`.
        uncertain: Number of those that are `uncertain`.
        reasons: Number of those without a decision, by reason.
        luma: Median luma of the face with the highest score, 0..255; None without a face.
        tone_angle: Median individual typology angle of that face in degrees; None in coloured light.
        error: Why the file cannot be read.
        windows: Some of the verdicts that are not `warming`, with their image quality.
    """

    state: str
    p_fake: float | None
    seconds: float
    alarms: int
    first_alarm_s: float | None
    verdicts: int
    fake: int
    uncertain: int
    reasons: dict[str, int]
    luma: float | None
    tone_angle: float | None
    error: str | None = None
    windows: tuple[WindowRecord, ...] = ()


def unreadable(error: str) -> VideoRecord:
    """Return the record of a video that cannot be scanned.

    Args:
        error: Why.
    """
    return VideoRecord(
        state="unreadable",
        p_fake=None,
        seconds=0.0,
        alarms=0,
        first_alarm_s=None,
        verdicts=0,
        fake=0,
        uncertain=0,
        reasons={},
        luma=None,
        tone_angle=None,
        error=error,
    )


class FootageRecorder:
    """Receiver of the analysed frames of one video; see `runtime.pipeline.scan.OnSample`.

    Args:
        crop_margin: Side of the crops as a multiple of the box's height.
    """

    def __init__(self, crop_margin: float) -> None:
        self._margin = crop_margin
        self._states: dict[int, FaceState] = {}
        self._samples: dict[int, int] = defaultdict(int)
        self._appearance: dict[int, list[Appearance]] = defaultdict(list)
        self._alarms = 0
        self._first_alarm_s: float | None = None
        self._verdicts = self._fake = self._uncertain = 0
        self._reasons: dict[str, int] = defaultdict(int)
        self._quality: dict[int, deque[tuple[float, ...]]] = defaultdict(
            lambda: deque(maxlen=QUALITY_SAMPLES)
        )
        self._scored: dict[int, int] = defaultdict(int)
        self._windows: list[WindowRecord] = []

    def __call__(self, time_s: float, observed: ObservedFrame, verdicts: Sequence[FaceVerdict]) -> None:
        """Add one analysed frame."""
        for face, crop in zip(observed.faces, observed.crops, strict=True):
            if self._samples[face.id] % APPEARANCE_EVERY == 0:
                self._appearance[face.id].append(measure_appearance(crop, self._margin))
            self._samples[face.id] += 1
            self._quality[face.id].append(_quality(observed.frame, face, crop))
        for verdict in verdicts:
            previous = self._states.get(verdict.face)
            self._states[verdict.face] = verdict.state
            if verdict.state == "fake" and previous != "fake":
                self._alarms += 1
                if self._first_alarm_s is None:
                    self._first_alarm_s = time_s
            if verdict.state in SCORED_STATES:
                self._verdicts += 1
                self._fake += verdict.state == "fake"
                self._uncertain += verdict.state == "uncertain"
                if verdict.reason is not None:
                    self._reasons[verdict.reason] += 1
                self._add_window(verdict)

    def _add_window(self, verdict: FaceVerdict) -> None:
        self._scored[verdict.face] += 1
        if self._scored[verdict.face] % WINDOW_EVERY == 0 and verdict.p_fake is not None:
            medians = np.median(np.array(self._quality[verdict.face]), axis=0)
            values = [round(float(value), 3) for value in medians]
            names = WindowRecord.__struct_fields__[2:]
            self._windows.append(
                WindowRecord(
                    p_fake=round(verdict.p_fake, 4),
                    reason=verdict.reason,
                    **dict(zip(names, values, strict=True)),
                )
            )

    def record(self, result: ScanResult) -> VideoRecord:
        """Return the record of the video.

        Args:
            result: Result of the scan.
        """
        scored = [face for face in result.faces if face.p_fake is not None and face.counts]
        best = max(scored, key=lambda face: face.p_fake or 0.0, default=None)
        longest = max(result.faces, key=lambda face: face.seconds, default=None)
        shown = best or longest
        appearance = [] if shown is None else self._appearance[shown.face]
        angles = [one.tone_angle for one in appearance if one.tone_angle is not None]
        return VideoRecord(
            state=result.state,
            p_fake=result.p_fake,
            seconds=result.seconds,
            alarms=self._alarms,
            first_alarm_s=self._first_alarm_s,
            verdicts=self._verdicts,
            fake=self._fake,
            uncertain=self._uncertain,
            reasons=dict(self._reasons),
            luma=float(np.median([one.luma for one in appearance])) if appearance else None,
            # In most of the samples the light must allow a measurement.
            tone_angle=float(np.median(angles)) if angles and 2 * len(angles) >= len(appearance) else None,
            error=result.error,
            windows=tuple(self._windows),
        )


def _quality(frame: Frame, face: Face, crop: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the measures of one sample in the order of `WindowRecord`."""
    found = measure_quality(crop)
    return (
        face.box[3],
        found.sharpness,
        found.noise,
        found.brightness,
        found.contrast,
        _blockiness(frame.image, face.box),
        abs(face.yaw),
        abs(face.roll),
    )


def _blockiness(image: av.VideoFrame, box: Box) -> float:
    """Return the blockiness of the luma within a box; 1 if the first plane is not luma of 8 bits."""
    plane = image.planes[0]
    x, y, width, height = (round(value) for value in box)
    left, top = max(x, 0), max(y, 0)
    if not image.format.name.startswith(("yuv", "nv")) or plane.line_size < plane.width:
        return 1.0
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * plane.height)
    luma = lines.reshape(plane.height, plane.line_size)[top : y + height, left : min(x + width, plane.width)]
    if image.format.components[0].bits != 8 or min(luma.shape) < 2 * BLOCK:
        return 1.0
    return measure_blockiness(luma, left, top)


def read_records(path: Path) -> dict[str, VideoRecord]:
    """Read the records that an earlier run has stored; a damaged line is left out.

    Args:
        path: File written by `append_record`; it may be missing.

    Returns:
        Records by key.
    """
    records = {}
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue
            records[entry.key] = entry.record
    return records


def append_record(path: Path, key: str, record: VideoRecord) -> None:
    """Append one record to a file.

    Args:
        path: The file, in an existing folder.
        key: Identity of the video and of what scored it.
        record: The record.
    """
    with path.open("ab") as file:
        file.write(msgspec.json.encode(_Line(key=key, record=record)) + b"\n")


class _Line(msgspec.Struct):
    key: str
    record: VideoRecord
