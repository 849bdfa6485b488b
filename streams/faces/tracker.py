"""Carry the identity of faces from one picture to the next; boxes in, boxes out, no pixels.

A track goes on only while something vouches for it: a measured motion between two pictures (`move`), and a
detection where that motion led (`confirm`). Where tracks and detections can be matched in more than one way,
the tracks end and the detections start new ones: a history given to the wrong face is worse than one that
starts over. Ids count up and are never given twice.
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
    missed: int = 0
    """How many detections in a row have not found the face."""


class Tracker:
    """Keeps tracks from the motion of faces and from detections.

    Args:
        min_overlap: A detection confirms a track only from this IoU on.
        ambiguity: A match is ambiguous when another track or detection reaches this share of its IoU.
        smoothing: Share of the moved box, against the detected one, in the box of a confirmed track, 0..1.
        max_missed: A track ends when more detections in a row than this have not found it.
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
        """The tracks that are alive, oldest first."""
        return tuple(self._tracks)

    @property
    def crowded(self) -> bool:
        """Whether two tracks overlap, so that their motion can no longer be told apart for long."""
        boxes = _boxes([track.box for track in self._tracks])
        overlaps = _iou(boxes, boxes)
        return any(overlaps[a, b] > 0 for a, b in combinations(range(len(boxes)), 2))

    def move(self, shifts: Mapping[int, tuple[float, float]]) -> None:
        """Move every track by its measured motion, and end those that have none.

        Args:
            shifts: Track id to motion right and down, in pixels.
        """
        self._tracks = [
            replace(track, box=(track.box[0] + shift[0], track.box[1] + shift[1], *track.box[2:]))
            for track in self._tracks
            if (shift := shifts.get(track.id)) is not None
        ]

    def confirm(self, detections: Sequence[Detection]) -> None:
        """Match the detections of the present picture to the tracks.

        A matched track takes over the detection's box, smoothed, and its score. A track without a detection
        counts a miss, and ends after too many. A detection without a track, or whose match is ambiguous,
        starts a new one.

        Args:
            detections: All faces found in the picture.
        """
        overlaps = _iou(_boxes([t.box for t in self._tracks]), _boxes([d.box for d in detections]))
        overlaps[overlaps < self._min_overlap] = 0
        matched: dict[int, int] = {}
        for row, column in _assign(overlaps):
            if overlaps[row, column] > 0:
                matched[row] = column
        contested = {row for row, column in matched.items() if self._is_ambiguous(overlaps, row, column)}
        # The rivals of a contested match go with it: either could be the face that was detected.
        for row in tuple(contested):
            contested.update(np.flatnonzero(overlaps[:, matched[row]]).tolist())
        kept: list[Track] = []
        for row, track in enumerate(self._tracks):
            if row in contested:
                matched.pop(row, None)
            elif row in matched:
                kept.append(self._confirmed(track, detections[matched[row]]))
            elif track.missed < self._max_missed:
                kept.append(replace(track, missed=track.missed + 1))
        taken = set(matched.values())
        for column, detection in enumerate(detections):
            if column not in taken:
                kept.append(Track(id=next(self._ids), box=detection.box, score=detection.score))
        self._tracks = kept

    def _is_ambiguous(self, overlaps: NDArray[np.float64], row: int, column: int) -> bool:
        rivals = np.concatenate([np.delete(overlaps[:, column], row), np.delete(overlaps[row], column)])
        return bool(rivals.max(initial=0) >= self._ambiguity * overlaps[row, column])

    def _confirmed(self, track: Track, detection: Detection) -> Track:
        moved, found = np.array(track.box), np.array(detection.box)
        x, y, width, height = (self._smoothing * moved + (1 - self._smoothing) * found).tolist()
        return replace(track, box=(x, y, width, height), score=detection.score, missed=0)


def _assign(overlaps: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, so that the sum of the chosen values is largest."""
    if overlaps.size == 0:
        return []
    if 1 in overlaps.shape:
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        return [(row, column)]
    # Half a second and 40 MB that a stream with one face never needs.
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
