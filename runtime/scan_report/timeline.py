"""Timeline of a scanned video: every score, and a bounded number of frames with the highest scores.

    timeline = ScanTimeline()
    scanner.scan(path, on_sample=timeline.add)
    timeline.samples, timeline.stills()

A long video keeps as many frames as a short one: the interval of a frame doubles as often as necessary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.messages import FaceState, UncertainReason
from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from runtime.scan_report.images import encode_crop, encode_frame

MAX_STILLS = 96
"""Largest number of frames kept per video."""
MIN_STILL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineSample:
    """Score of one face at one time.

    Args:
        time_s: Analysed time in seconds, without discontinuities.
        face: Id of the face.
        state: State of the face, as `monitor` would report it.
        p_fake: Calibrated probability of a fake, 0..1; None if there is none.
        reason: Why the image does not allow a decision; None if it does.
    """

    time_s: float
    face: int
    state: FaceState
    p_fake: float | None
    reason: UncertainReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """Frame with the highest score of its interval.

    Args:
        begin_s: Begin of the interval in analysed seconds.
        end_s: End of the interval.
        media_s: Media time of the frame, in seconds from the first frame.
        face: Face with the highest score; None if no face is scored in the interval.
        state: State of that face.
        p_fake: Score of that face, 0..1.
        frame: JPEG of the frame with the boxes of its faces.
        crop: JPEG of the model's crop of the face; None without a face.
    """

    begin_s: float
    end_s: float
    media_s: float
    face: int | None
    state: FaceState | None
    p_fake: float | None
    frame: bytes
    crop: bytes | None

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of two frames, of which the higher one is kept."""
        return self.face is not None, -1.0 if self.p_fake is None else self.p_fake


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """Frame of the current interval that is encoded once the interval is over."""

    observed: ObservedFrame
    verdicts: Sequence[FaceVerdict]
    best: FaceVerdict | None
    crop: NDArray[np.uint8] | None

    @property
    def rank(self) -> tuple[bool, float]:
        best = self.best
        return best is not None, -1.0 if best is None or best.p_fake is None else best.p_fake


class ScanTimeline:
    """Scores and frames of one video, collected in order.

    Args:
        max_stills: Largest number of frames to keep, at least 2.

    Raises:
        ValueError: `max_stills` is below 2.
    """

    def __init__(self, *, max_stills: int = MAX_STILLS) -> None:
        if max_stills < 2:
            raise ValueError(f"max_stills must be at least 2, not {max_stills}")
        self.samples: list[TimelineSample] = []
        """Scores of all faces, in the order of time."""
        self.not_scored: Counter[str] = Counter()
        """Number of samples of faces without a score, by reason; see `UncertainReason`."""
        self._max_stills = max_stills
        self._interval_s = MIN_STILL_S
        self._stills: list[Still] = []
        self._candidate: _Candidate | None = None
        self._candidate_index = 0
        self._first_pts_s: float | None = None
        self._presence: Counter[int] = Counter()

    def add(self, time_s: float, observed: ObservedFrame, verdicts: Sequence[FaceVerdict]) -> None:
        """Add one analysed frame.

        Args:
            time_s: Analysed time in seconds.
            observed: The frame.
            verdicts: Verdicts on its faces.
        """
        if self._first_pts_s is None:
            self._first_pts_s = observed.frame.pts_s
        self._presence.update(face.id for face in observed.faces)
        for verdict in verdicts:
            if verdict.state == "stale":
                continue
            if verdict.reason is not None:
                self.not_scored[verdict.reason] += 1
            scored = verdict.logit is not None and verdict.reason is None
            self.samples.append(
                TimelineSample(
                    time_s=time_s,
                    face=verdict.face,
                    state=verdict.state,
                    p_fake=verdict.p_fake if scored else None,
                    reason=verdict.reason,
                )
            )
        if not observed.repeated or self._first_pts_s == observed.frame.pts_s:
            self._keep(time_s, observed, verdicts)

    def stills(self) -> list[Still]:
        """Return the frames that were kept, in order."""
        self._close_interval()
        return list(self._stills)

    def _keep(self, time_s: float, observed: ObservedFrame, verdicts: Sequence[FaceVerdict]) -> None:
        if self._index(time_s) != self._candidate_index:
            # May double the interval.
            self._close_interval()
            self._candidate_index = self._index(time_s)
        best = self._best(verdicts)
        crop = None
        if best is not None:
            row = next(row for row, face in enumerate(observed.faces) if face.id == best.face)
            crop = observed.crops[row]
        candidate = _Candidate(observed=observed, verdicts=verdicts, best=best, crop=crop)
        if self._candidate is None or candidate.rank > self._candidate.rank:
            self._candidate = candidate

    def _index(self, time_s: float) -> int:
        # A sample counts for the time before it.
        return int(max(0.0, time_s - 1e-6) / self._interval_s)

    def _best(self, verdicts: Sequence[FaceVerdict]) -> FaceVerdict | None:
        """Return the highest score among the faces that were in view for long enough so far."""
        longest = max(self._presence.values(), default=0)
        scored = [
            verdict
            for verdict in verdicts
            if verdict.p_fake is not None
            and verdict.reason is None
            and 2 * self._presence[verdict.face] >= longest
        ]
        return max(scored, key=lambda verdict: verdict.p_fake or 0.0, default=None)

    def _close_interval(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return
        assert self._first_pts_s is not None
        begin_s = self._candidate_index * self._interval_s
        best = candidate.best
        still = Still(
            begin_s=begin_s,
            end_s=begin_s + self._interval_s,
            media_s=candidate.observed.frame.pts_s - self._first_pts_s,
            face=None if best is None else best.face,
            state=None if best is None else best.state,
            p_fake=None if best is None else best.p_fake,
            frame=encode_frame(candidate.observed.frame.image, candidate.verdicts),
            crop=None if candidate.crop is None else encode_crop(candidate.crop),
        )
        # After the interval was doubled, its first half may already have a frame.
        if self._stills and self._stills[-1].begin_s == begin_s:
            still = max(self._stills.pop(), still, key=lambda still: still.rank)
        self._stills.append(still)
        if len(self._stills) > self._max_stills:
            self._thin_out()

    def _thin_out(self) -> None:
        """Double the interval, and keep the frame with the higher score of each two."""
        self._interval_s *= 2
        merged: dict[int, Still] = {}
        for still in self._stills:
            index = int(still.begin_s / self._interval_s + 1e-9)
            known = merged.get(index)
            if known is None or still.rank > known.rank:
                merged[index] = still
        self._stills = [
            replace(still, begin_s=index * self._interval_s, end_s=(index + 1) * self._interval_s)
            for index, still in merged.items()
        ]


def highest_scored(
    stills: Sequence[Still], counting: set[int], *, count: int = 6, apart_s: float = 1.0
) -> list[Still]:
    """Return the frames with the highest scores, at some distance from each other, highest first.

    Args:
        stills: Frames of the video.
        counting: Faces that count for the score of the video.
        count: Largest number of frames.
        apart_s: Smallest distance between two frames in seconds of media time.
    """
    chosen: list[Still] = []
    candidates = [still for still in stills if still.face in counting and still.p_fake is not None]
    for still in sorted(candidates, key=lambda still: -(still.p_fake or 0.0)):
        if len(chosen) < count and all(abs(still.media_s - other.media_s) >= apart_s for other in chosen):
            chosen.append(still)
    return chosen
