"""Assignment of track ids to face boxes from frame to frame; no pixels and no I/O.

A track continues only with a measured motion between two frames (`move`) and a detection at the place it
moved to (`confirm`). If tracks and detections can be matched in more than one way, those tracks end and the
detections start new ones: a window with samples of two faces is worse than a new window. Ids count up and are
never reused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray

from streams.faces.crop import Box
from streams.faces.detector import Detection


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One face that is being followed."""

    id: int
    box: Box
    score: float
    """Confidence of the last detection that confirmed the track, 0..1."""
    roll: float = 0.0
    """Rotation in the image in degrees at the last detection; see `Detection`."""
    yaw: float = 0.0
    """Rotation about the vertical axis of the head in degrees at the last detection; see `Detection`."""
    missed: int = 0
    """Number of consecutive detections that did not find the face."""


class Tracker:
    """Tracks of faces, updated by measured motion and by detections.

    Args:
        min_overlap: Lowest IoU at which a detection confirms a track.
        ambiguity: A match is ambiguous if another track or detection reaches this share of its IoU.
        smoothing: Weight of the moved box, against the detected one, in the box of a confirmed track, 0..1.
        max_missed: A track ends after more than this many consecutive detections without its face.
    """

    def __init__(
        self,
        *,
        min_overlap: float = 0.3,
        ambiguity: float = 0.5,
        smoothing: float = 0.5,
        max_missed: int = 1,
    ) -> None:
        self._min_overlap = min_overlap
        self._ambiguity = ambiguity
        self._smoothing = smoothing
        self._max_missed = max_missed
        self._ids = count(1)
        self._tracks: list[Track] = []

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Return the current tracks, oldest first."""
        return tuple(self._tracks)

    @property
    def has_overlap(self) -> bool:
        """Return whether any two tracks overlap, so that optical flow may soon confuse them."""
        boxes = _boxes([track.box for track in self._tracks])
        overlaps = _iou(boxes, boxes)
        return any(overlaps[a, b] > 0 for a, b in combinations(range(len(boxes)), 2))

    def clear(self) -> None:
        """End all tracks; ids continue to count up."""
        self._tracks = []

    def move(self, shifts: Mapping[int, tuple[float, float]]) -> None:
        """Move every track by its measured motion, and end the tracks without one.

        Args:
            shifts: Track id -> motion (right, down) in pixels.
        """
        self._tracks = [
            replace(track, box=(track.box[0] + shift[0], track.box[1] + shift[1], *track.box[2:]))
            for track in self._tracks
            if (shift := shifts.get(track.id)) is not None
        ]

    def confirm(self, detections: Sequence[Detection]) -> None:
        """Match the detections of the current frame to the tracks.

        A matched track takes the smoothed box and the score of its detection. A track without a detection
        counts a miss and ends after `max_missed`. A detection without a track, or with an ambiguous match,
        starts a new track.

        Args:
            detections: All faces detected in the frame.
        """
        matched, ambiguous = self._match(detections)
        kept: list[Track] = []
        for row, track in enumerate(self._tracks):
            if row in matched:
                kept.append(self._confirmed(track, detections[matched[row]]))
            elif row not in ambiguous and track.missed < self._max_missed:
                kept.append(replace(track, missed=track.missed + 1))
        taken = set(matched.values())
        for column, detection in enumerate(detections):
            if column not in taken:
                kept.append(_confirmed(Track(id=next(self._ids), box=detection.box, score=0.0), detection))
        self._tracks = kept

    def _match(self, detections: Sequence[Detection]) -> tuple[dict[int, int], set[int]]:
        """Return the unambiguous matches as track index -> detection index, and the ambiguous tracks."""
        overlaps = _iou(_boxes([t.box for t in self._tracks]), _boxes([d.box for d in detections]))
        overlaps[overlaps < self._min_overlap] = 0
        pairs = {row: column for row, column in _assign(overlaps) if overlaps[row, column] > 0}
        ambiguous = {row for row, column in pairs.items() if self._is_ambiguous(overlaps, row, column)}
        # The rivals of an ambiguous match end too: each of them could be the detected face.
        for row in tuple(ambiguous):
            ambiguous.update(np.flatnonzero(overlaps[:, pairs[row]]).tolist())
        return {row: column for row, column in pairs.items() if row not in ambiguous}, ambiguous

    def _is_ambiguous(self, overlaps: NDArray[np.float64], row: int, column: int) -> bool:
        rivals = np.concatenate([np.delete(overlaps[:, column], row), np.delete(overlaps[row], column)])
        return bool(rivals.max(initial=0) >= self._ambiguity * overlaps[row, column])

    def _confirmed(self, track: Track, detection: Detection) -> Track:
        moved, detected = np.array(track.box), np.array(detection.box)
        x, y, width, height = (self._smoothing * moved + (1 - self._smoothing) * detected).tolist()
        return _confirmed(replace(track, box=(x, y, width, height)), detection)


def _confirmed(track: Track, detection: Detection) -> Track:
    """Return the track with what it keeps of its last detection, beside the box."""
    return replace(track, score=detection.score, roll=detection.roll, yaw=detection.yaw, missed=0)


def _assign(overlaps: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, to maximise the sum of the chosen values."""
    if overlaps.size == 0:
        return []
    candidates = overlaps > 0
    if candidates.sum(0).max() <= 1 and candidates.sum(1).max() <= 1:
        # No row and no column has a choice.
        rows, columns = np.nonzero(candidates)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))
    if 1 in overlaps.shape:
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        return [(row, column)]
    # Imported late: it costs half a second and 40 MB, and boxes that overlap more than one other are rare.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _boxes(boxes: Sequence[Box]) -> NDArray[np.float64]:
    return np.array(boxes, np.float64).reshape(-1, 4)


def _iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of every box of (N, 4) with every box of (M, 4), as (N, M)."""
    a, b = first[:, None], second[None]
    corners = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(
        a[..., :2], b[..., :2]
    )
    shared = np.clip(corners, 0, None).prod(axis=-1)
    union = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))
