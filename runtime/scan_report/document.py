"""Content of a report: what was scanned, by which model, and the results; and its JSON form."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.model.bundle import Bundle
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.timeline import ScanTimeline, Still, TimelineSample, highest_scored
from runtime.scan_report.wording import LIMITS, verdict_text

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ScannedVideo:
    """Result, timeline and file facts of one video.

    Args:
        result: Result of the scan.
        samples: Scores over time.
        not_scored: Samples without a score by reason.
        stills: Frames of the video, in order.
        bytes: Size of the file; None if it is unknown.
        sha256: SHA-256 of the file in hexadecimal; None if it is unknown.
    """

    result: ScanResult
    samples: Sequence[TimelineSample]
    not_scored: Counter[str]
    stills: Sequence[Still]
    bytes: int | None
    sha256: str | None

    @classmethod
    def of(cls, path: Path, result: ScanResult, timeline: ScanTimeline) -> ScannedVideo:
        """Collect the facts of a scanned file.

        Args:
            path: The file.
            result: Its result.
            timeline: Its timeline.
        """
        size, digest = _hash(path)
        return cls(
            result=result,
            samples=timeline.samples,
            not_scored=timeline.not_scored,
            stills=timeline.stills(),
            bytes=size,
            sha256=digest,
        )

    @property
    def moments(self) -> list[Still]:
        """Frames with the highest scores of the faces that count, highest first."""
        return highest_scored(self.stills, {face.face for face in self.result.faces if face.counts})


@dataclass(frozen=True, kw_only=True)
class Report:
    """Content of a report.

    Args:
        videos: The scanned videos.
        bundle: The model.
        engine: Description of the engine.
        version: Version of unmask.
        created: Date and time in ISO 8601, in UTC.
    """

    videos: Sequence[ScannedVideo]
    bundle: Bundle
    engine: str
    version: str
    created: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this report, without images."""
        calibration = self.bundle.calibration
        return {
            "created": self.created,
            "unmask": self.version,
            "engine": self.engine,
            "model": {
                "name": self.bundle.name,
                "sha256": self.bundle.digest,
                "sample_hz": self.bundle.sample_hz,
                "window": self.bundle.window,
                "threshold_real": calibration.threshold_real,
                "threshold_fake": calibration.threshold_fake,
            },
            "limits": LIMITS,
            "videos": [self._video(video) for video in self.videos],
        }

    def _video(self, video: ScannedVideo) -> dict[str, Any]:
        verdict = verdict_text(video.result, self.bundle.calibration)
        return {
            **video.result.to_dict(),
            "verdict": verdict.state,
            "verdict_title": verdict.title,
            "verdict_text": verdict.text,
            "bytes": video.bytes,
            "sha256": video.sha256,
            "not_scored": dict(video.not_scored),
            "moments": [
                {"media_s": round(still.media_s, 3), "face": still.face, "p_fake": still.p_fake}
                for still in video.moments
            ],
            "timeline": [
                {
                    "time_s": round(sample.time_s, 3),
                    "face": sample.face,
                    "state": sample.state,
                    "p_fake": None if sample.p_fake is None else round(sample.p_fake, 4),
                    **({} if sample.reason is None else {"reason": sample.reason}),
                }
                for sample in video.samples
            ],
        }


def _hash(path: Path) -> tuple[int | None, str | None]:
    # Pipes and devices cannot be read a second time.
    if not path.is_file():
        return None, None
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError:
        return None, None
    return size, digest.hexdigest()
