"""Faces of one stream that are being analysed: selection, windows and removal. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from runtime.messages import UncertainReason
from runtime.model.bundle import Bundle
from runtime.model.quality_limits import QualityGate, QualityLimits, SampleQuality
from runtime.pipeline.decision import FaceDecision
from runtime.pipeline.window import FaceWindow
from streams.faces.crop import Box
from streams.faces.finder import Face
from streams.features.picture_quality import measure_brightness, measure_chroma
from streams.features.temporal_residuals import ResidualMeter
from streams.input.continuity import Spacing

# Samples of one turn, in windows, where faces take turns: long enough for verdicts on a full window.
TURN_WINDOWS = 2
# A face that is missing from this many consecutive samples is gone, and its window is discarded.
MAX_MISSES = 2

# A verdict is made from the mean logit of the windows of this many seconds, as the score of a video is from
# all of its windows: single windows cross the thresholds back and forth.
AVERAGED_S = 4.0


class AnalysedFace:
    """Window, decision and latest position of one face.

    Args:
        face_id: Track id.
        bundle: The model.
        expiry_s: Age in seconds above which a verdict is `stale`.
    """

    def __init__(self, face_id: int, bundle: Bundle, expiry_s: float) -> None:
        meter = None if bundle.temporal is None else ResidualMeter()
        self.id = face_id
        self.window = FaceWindow(bundle.window, bundle.feature_dim, meter)
        self.decision = FaceDecision(bundle.calibration, min_fill=bundle.min_fill, expiry_s=expiry_s)
        self.logits: tuple[float, float] | None = None
        """Logits of network and temporal classifier; None if a sample has been measured since."""
        self.misses = 0
        self.seen_s = 0.0
        self.box: Box = (0.0, 0.0, 0.0, 0.0)
        self.roll = self.yaw = 0.0
        # One sample per computed feature is measured, over one window.
        self._quality = QualityGate(QualityLimits(), samples=bundle.window // bundle.feature_every)
        self._logits: deque[tuple[float, float, bool]] = deque()
        self._sample_hz = bundle.sample_hz
        self._window_s = bundle.window / bundle.sample_hz

    @property
    def reason(self) -> UncertainReason | None:
        """Why the image does not allow a decision on this face; None if it does."""
        if self._quality.reason is not None:
            return self._quality.reason
        return "no_motion" if self.window.still else None

    def measure_quality(self, crop: NDArray[np.uint8]) -> None:
        """Measure the image quality of the newest sample.

        Args:
            crop: RGB uint8 `(S, S, 3)`.
        """
        self._quality.add(
            SampleQuality(
                height=self.box[3],
                roll=self.roll,
                yaw=self.yaw,
                brightness=measure_brightness(crop),
                chroma=measure_chroma(crop),
            )
        )

    def mean_logit(self, pts_s: float, logit: float) -> float:
        """Add the logit of the newest window and return the mean of the last `AVERAGED_S`.

        Windows in which the image did not allow a decision count only while it still does not. Until the
        logits cover as much time as a window, the mean is drawn towards even odds, because the first short
        windows raise most of the false alarms.

        Args:
            pts_s: Media time of the window's last sample in seconds.
            logit: Logit of the window.
        """
        allowed = self.reason is None
        self._logits.append((pts_s, logit, allowed))
        while pts_s - self._logits[0][0] > AVERAGED_S:
            self._logits.popleft()
        mean = fmean(value for _, value, counts in self._logits if counts or not allowed)
        covered_s = pts_s - self._logits[0][0] + 1 / self._sample_hz
        even_odds = -self.decision.calibration.offset
        return even_odds + min(1.0, covered_s / self._window_s) * (mean - even_odds)

    def restart(self) -> None:
        """Drop all samples, because the next one does not follow them."""
        self.window.clear()
        self._logits.clear()
        self._quality.clear()
        self.logits = None
        self.decision.reset()


class FaceTurns:
    """Choice of the faces to analyse when there are more than can be analysed at once.

    A face is analysed for a whole turn, because replacing it earlier would leave a gap in the windows of
    both. Then it makes room for the face that has waited longest; among equals, for the largest.

    Args:
        max_faces: Number of places; None for any number.
        turn: Length of a turn in samples.
    """

    def __init__(self, max_faces: int | None, *, turn: int) -> None:
        self.waiting = 0
        """Number of faces of the last frame that have no place."""
        self._max_faces = max_faces
        self._turn = turn
        self._frame = 0
        # Samples since a face got its place, and the frames in which it was last seen or lost its place.
        self._taken: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._served: dict[int, int] = {}

    def select(self, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Select the faces of the next frame to analyse.

        Args:
            faces: All faces of the frame.
        """
        self._frame += 1
        self._seen = {face: seen for face, seen in self._seen.items() if self._frame - seen <= MAX_MISSES}
        self._seen.update((face.id, self._frame) for face in faces)
        chosen = tuple(faces)
        if self._max_faces is not None and len(faces) > self._max_faces:
            chosen = tuple(sorted(faces, key=self._rank)[: self._max_faces])
        ids = {face.id for face in chosen}
        for face in faces:
            if face.id not in ids and self._taken.pop(face.id, None) is not None:
                self._served[face.id] = self._frame
        self._taken = {face: taken for face, taken in self._taken.items() if face in self._seen}
        self._served = {face: frame for face, frame in self._served.items() if face in self._seen}
        for face_id in ids:
            self._taken[face_id] = self._taken.get(face_id, 0) + 1
        self.waiting = len(faces) - len(chosen)
        return chosen

    def _rank(self, face: Face) -> tuple[int, float, float]:
        """Return the order: faces within their turn, those that wait, those whose turn is over."""
        taken = self._taken.get(face.id)
        if taken is None:
            return 1, self._served.get(face.id, 0), -face.box[3]
        return (0 if taken < self._turn else 2), 0, -face.box[3]


class FeatureSchedule:
    """Choice of the crops of one stream that are measured: those of every n-th sample of a face.

    They go through the backbone, and their temporal residuals are computed. The head averages the features of
    a window, so those of neighbouring samples add little. The samples between keep the newest feature and
    have no residuals; their verdicts follow from a window that has moved on.

    A face's first sample is always chosen, as is each sample whose window may be empty: after a frame without
    the face, after a gap, and in a new segment. Faces take turns, so that the load of several is even.

    Args:
        every: Samples from one computed feature of a face to the next, at least 1.
        sample_hz: Nominal rate in samples per second of media time.
        phase: Number of samples by which the choice is brought forward.
    """

    def __init__(self, every: int, *, sample_hz: float, phase: int = 0) -> None:
        self._every = every
        self._phase = phase
        self._spacing = Spacing(sample_hz)
        self._number = 0
        self._segment: int | None = None
        self._time_s = 0.0
        self._seen: frozenset[int] = frozenset()

    def choose(self, faces: Sequence[int], *, time_s: float, segment: int) -> tuple[bool, ...]:
        """Choose among the faces of the next sample.

        Args:
            faces: Track ids of the faces in the sample.
            time_s: Media time in seconds.
            segment: Segment of the sample.

        Returns:
            For each face, whether its crop goes through the backbone.
        """
        continues = segment == self._segment and self._spacing.is_bridgeable(time_s - self._time_s)
        known = self._seen if continues else frozenset()
        self._number += 1
        self._segment, self._time_s, self._seen = segment, time_s, frozenset(faces)
        number = self._number + self._phase
        return tuple(face not in known or (number + face) % self._every == 0 for face in faces)


class AnalysedFaces:
    """All faces of one stream that are being analysed.

    Args:
        bundle: The model.
        max_faces: Largest number of faces analysed in one frame; None for all. Further faces take turns.
        expiry_s: Age in seconds above which a verdict is `stale`.
    """

    def __init__(self, bundle: Bundle, *, max_faces: int | None, expiry_s: float) -> None:
        self._bundle = bundle
        self._max_faces = max_faces
        self._expiry_s = expiry_s
        self._spacing = Spacing(bundle.sample_hz)
        self._segment: int | None = None
        self._faces: dict[int, AnalysedFace] = {}
        self._turns = FaceTurns(max_faces, turn=TURN_WINDOWS * bundle.window)

    @property
    def ids(self) -> Collection[int]:
        """Track ids of the faces."""
        return self._faces.keys()

    @property
    def waiting(self) -> int:
        """Number of faces of the last frame that wait for their turn."""
        return self._turns.waiting

    def select(self, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Select the faces of the next frame to analyse; see `FaceTurns`.

        Args:
            faces: All faces of the frame.
        """
        return self._turns.select(faces)

    def update(
        self, faces: Iterable[Face], *, time_s: float, segment: int
    ) -> tuple[list[AnalysedFace], list[AnalysedFace]]:
        """Update with the selected faces of a frame, and remove those that are gone.

        In a new segment every face starts again, and a face that is not in its first frame is gone.

        Args:
            faces: Selected faces of the frame.
            time_s: Media time of the frame in seconds.
            segment: Segment of the frame.

        Returns:
            The faces in the frame, in their order, and the faces that are gone.
        """
        begins = segment != self._segment
        self._segment = segment
        present = [self._update(face, time_s, begins=begins) for face in faces]
        visible = {face.id for face in present}
        gone = []
        for face in list(self._faces.values()):
            if face.id not in visible:
                face.misses += 1
                # A lost sample counts like a frame without the face.
                lost = not self._spacing.is_regular(time_s - face.seen_s)
                if begins or lost or face.misses >= MAX_MISSES:
                    gone.append(self._faces.pop(face.id))
        return present, gone

    def _update(self, face: Face, time_s: float, *, begins: bool) -> AnalysedFace:
        analysed = self._faces.get(face.id)
        if analysed is None:
            analysed = self._faces[face.id] = AnalysedFace(face.id, self._bundle, self._expiry_s)
        elif begins or not self._spacing.is_bridgeable(time_s - analysed.seen_s):
            analysed.restart()
        analysed.misses = 0
        analysed.seen_s = time_s
        analysed.box = face.box
        analysed.roll = face.roll
        analysed.yaw = face.yaw
        return analysed
