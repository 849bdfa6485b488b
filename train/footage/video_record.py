"""Record of one scanned video: score, alarms, appearance of its face."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from runtime.messages import SCORED_STATES, FaceState
from runtime.pipeline.scan_result import ScanResult
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from train.footage.appearance import Appearance, measure_appearance

# The appearance of a face is measured in every n-th of its samples.
APPEARANCE_EVERY = 8


class VideoRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Result of scanning one video with one model.

    Args:
        state: State of the scan; only `scored` has a score.
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

    def __call__(self, time_s: float, observed: ObservedFrame, verdicts: Sequence[FaceVerdict]) -> None:
        """Add one analysed frame."""
        for face, crop in zip(observed.faces, observed.crops, strict=True):
            if self._samples[face.id] % APPEARANCE_EVERY == 0:
                self._appearance[face.id].append(measure_appearance(crop, self._margin))
            self._samples[face.id] += 1
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
        )


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
