"""Result of scanning one video, and its accumulation from the analysed frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from runtime.messages import UncertainReason
from runtime.model.bundle import Bundle
from runtime.model.video_score import FaceLogits, counting_faces, face_p_fake, video_p_fake
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame

MAX_INTERVAL_S = 1.0
"""Longest interval between two samples, in seconds, that counts as analysed; more is a discontinuity."""

# A window of these has a score, which is no evidence. The others have none.
QUALITY_REASONS: frozenset[UncertainReason] = frozenset({"turned_away", "too_small", "dark", "no_colour"})

ScanState: TypeAlias = Literal[
    "scored", "uncertain", "no_face", "no_motion", "turned", "too_short", "too_slow", "unreadable"
]


@dataclass(frozen=True, kw_only=True)
class FaceScore:
    """Score of one face over a whole video.

    Args:
        face: Id of the face within the video.
        p_fake: Calibrated probability of a fake over all of its windows, 0..1; None if it has no window.
        windows: Number of windows that were scored.
        seconds: Time in seconds for which the face was in view.
        counts: Whether the face counts for the score of the video: it has a window, and is in view for at
            least half as long as the face in view longest.
    """

    face: int
    p_fake: float | None
    windows: int
    seconds: float
    counts: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this score."""
        return {
            "face": self.face,
            "p_fake": None if self.p_fake is None else round(self.p_fake, 6),
            "windows": self.windows,
            "seconds": round(self.seconds, 3),
            "counts": self.counts,
        }


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Result of scanning one video.

    Args:
        file: Path as given by the user.
        state: `scored`; `uncertain` (in most windows of every face that counts, the image does not allow a
            decision: see `reason`); `no_face`; `no_motion` (still images: no face moves, or the frames do not
            change); `turned`; `too_short` (no face in `min_frames` consecutive samples); `too_slow`
            (frame rate too low for the model); `unreadable`. Only `scored` and `uncertain` have a score, and
            that of the latter is no evidence.
        p_fake: Calibrated probability of a fake, 0..1; see `runtime.model.video_score`.
        reason: Why the state is `uncertain`; None otherwise.
        faces: Scores of all faces, ordered by id.
        seconds: Analysed length in seconds of media time, without discontinuities.
        frames: Number of analysed frames, `sample_hz` per second.
        error: Why the file is unreadable.
    """

    file: str
    state: ScanState
    p_fake: float | None = None
    reason: UncertainReason | None = None
    faces: tuple[FaceScore, ...] = ()
    seconds: float = 0.0
    frames: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this result; `reason` and `error` are present only if there is one."""
        line: dict[str, Any] = {
            "file": self.file,
            "state": self.state,
            "p_fake": None if self.p_fake is None else round(self.p_fake, 6),
            "faces": [face.to_dict() for face in self.faces],
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
        }
        if self.reason is not None:
            line["reason"] = self.reason
        if self.error is not None:
            line["error"] = self.error
        return line


@dataclass
class _FaceHistory:
    logits: list[float] = field(default_factory=list)
    # Those of windows whose image quality does not allow a decision.
    doubtful: list[float] = field(default_factory=list)
    reasons: Counter[UncertainReason] = field(default_factory=Counter)
    samples: int = 0
    seconds: float = 0.0

    @property
    def reason(self) -> UncertainReason | None:
        """The most frequent reason if most windows have one; None otherwise."""
        if self.reasons.total() <= len(self.logits):
            return None
        return self.reasons.most_common(1)[0][0]


class ScanAccumulator:
    """Logits and faces of the frames of one video, accumulated in order.

    Args:
        bundle: Model whose calibration and sample rate apply.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.too_slow = False
        """Whether the reader has reported a frame rate that is too low for the model."""
        self._bundle = bundle
        self._faces: dict[int, _FaceHistory] = {}
        self._frames = 0
        self._seconds = 0.0
        self._last_s: float | None = None
        self._last_faces: list[_FaceHistory] = []
        # Windows without a verdict because the face is a still image, and repeated frames.
        self._still = 0
        self._repeated = self._turned = 0

    @property
    def seconds(self) -> float:
        """Analysed length so far, in seconds of media time."""
        return self._seconds

    def add(self, observed: ObservedFrame, verdicts: Iterable[FaceVerdict]) -> None:
        """Add one analysed frame and its verdicts."""
        pts_s, step_s = observed.frame.pts_s, 1 / self._bundle.sample_hz
        if self._last_s is not None and 0 < pts_s - self._last_s <= MAX_INTERVAL_S:
            # The last sample counts for the time until this one instead of one nominal interval.
            self._add_seconds(pts_s - self._last_s - step_s)
        present = [self._faces.setdefault(face.id, _FaceHistory()) for face in observed.faces]
        self._last_faces = present
        self._add_seconds(step_s)
        self._last_s = pts_s
        if observed.repeated:
            self._repeated += 1
            return
        self._frames += 1
        for history in present:
            history.samples += 1
        for verdict in verdicts:
            if verdict.reason is not None:
                self._still += verdict.reason == "no_motion"
                self._turned += verdict.reason == "turned"
                history = self._faces[verdict.face]
                history.reasons[verdict.reason] += 1
                if verdict.logit is not None and verdict.reason in QUALITY_REASONS:
                    history.doubtful.append(verdict.logit)
            elif verdict.logit is not None:
                self._faces[verdict.face].logits.append(verdict.logit)

    def _add_seconds(self, seconds: float) -> None:
        """Add to the length of the video, and to the time in view of the faces of the last frame."""
        self._seconds += seconds
        for history in self._last_faces:
            history.seconds += seconds

    def result(self, file: str) -> ScanResult:
        """Return the result of the video.

        Args:
            file: Path to report.
        """
        faces = [
            FaceLogits(
                face=face_id,
                # The score of a face without a window that allows a decision is that of all its windows.
                logits=history.logits if history.reason is None else history.logits + history.doubtful,
                samples=history.samples,
            )
            for face_id, history in sorted(self._faces.items())
        ]
        calibration = self._bundle.calibration
        counted = counting_faces(faces)
        decidable = [face for face in counted if self._faces[face.face].reason is None]
        # A face whose quality allows a decision decides; a video without one is uncertain.
        p_fake = video_p_fake(decidable or counted, calibration)
        counting = {face.face for face in decidable or counted}
        reason = None
        if counted and not decidable:
            reason = self._faces[max(counted, key=lambda face: face.samples).face].reason
        return ScanResult(
            file=file,
            state="uncertain" if reason is not None else self._state(p_fake),
            p_fake=p_fake,
            reason=reason,
            faces=tuple(
                FaceScore(
                    face=face.face,
                    p_fake=face_p_fake(face, calibration),
                    windows=len(face.logits),
                    seconds=self._faces[face.face].seconds,
                    counts=face.face in counting,
                )
                for face in faces
            ),
            seconds=self.seconds,
            frames=self._frames,
        )

    def _state(self, p_fake: float | None) -> ScanState:
        if p_fake is not None:
            return "scored"
        if self._turned:
            return "turned"
        if self._still or self._repeated > self._frames:
            return "no_motion"
        if self.too_slow:
            return "too_slow"
        if self._frames < self._bundle.min_frames:
            return "too_short"
        return "too_short" if self._faces else "no_face"
