"""Tests of the tracker: which ids continue, which are new, and that none moves to another face."""

from __future__ import annotations

import sys

import pytest

from streams.faces.crop import Box
from streams.faces.detector import Detection
from streams.faces.tracker import Tracker

FACE_A: Box = (100, 100, 80, 100)
FACE_B: Box = (400, 120, 90, 110)


def detections(*boxes: Box) -> list[Detection]:
    """Return detections with these boxes."""
    return [Detection(box, 0.9) for box in boxes]


def shifted(box: Box, right: float, down: float = 0.0) -> Box:
    """Return the box moved."""
    return (box[0] + right, box[1] + down, box[2], box[3])


def ids(tracker: Tracker) -> list[int]:
    """Return the ids of the current tracks."""
    return [track.id for track in tracker.tracks]


def test_ids_do_not_depend_on_the_order_of_detections() -> None:
    """Two faces detected again in the opposite order keep their ids."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A, FACE_B))
    tracker.confirm(detections(shifted(FACE_B, 8), shifted(FACE_A, -6, 4)))
    assert ids(tracker) == [1, 2]
    assert tracker.tracks[0].box[0] < tracker.tracks[1].box[0]


def test_faces_apart_are_matched_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it would stop a live stream for half a second when a second face appears."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    tracker = Tracker()
    tracker.confirm(detections(FACE_A, FACE_B))
    tracker.confirm(detections(shifted(FACE_B, 8), shifted(FACE_A, -6, 4), (700, 100, 80, 100)))
    assert ids(tracker) == [1, 2, 3]


def test_a_confirmed_box_is_smoothed() -> None:
    """A confirmed box lies between the moved and the detected box."""
    tracker = Tracker(smoothing=0.25)
    tracker.confirm(detections(FACE_A))
    tracker.move({1: (10, 0)})
    assert tracker.tracks[0].box == (110, 100, 80, 100)
    tracker.confirm([Detection((114, 104, 88, 108), 0.7)])
    (track,) = tracker.tracks
    assert track.box == pytest.approx((113, 103, 86, 106))
    assert track.score == 0.7


def test_a_track_ends_after_two_missed_detections() -> None:
    """One miss is counted and reset by the next detection; two in a row end the track."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A))
    tracker.confirm([])
    assert [track.missed for track in tracker.tracks] == [1]
    tracker.confirm(detections(FACE_A))
    assert [track.missed for track in tracker.tracks] == [0]
    tracker.confirm([])
    tracker.confirm([])
    assert tracker.tracks == ()
    tracker.confirm(detections(FACE_A))
    assert ids(tracker) == [2], "ids are not reused"


def test_a_track_without_measured_motion_ends() -> None:
    """The track ends even if a face is then detected at the same place."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A, FACE_B))
    tracker.move({2: (5, 0)})
    tracker.confirm(detections(FACE_A, shifted(FACE_B, 5)))
    assert sorted(ids(tracker)) == [2, 3]
    assert next(track for track in tracker.tracks if track.id == 2).box[0] == 405


def test_a_distant_detection_starts_a_track() -> None:
    """A face that does not overlap a track gets its own id."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A))
    tracker.confirm(detections(shifted(FACE_A, 300)))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 1, 2: 0}


def test_a_much_larger_detection_starts_a_track() -> None:
    """A detection that contains a track's box but is much larger has a low IoU and gets its own id."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A))
    tracker.confirm(detections((50, 50, 240, 300)))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 1, 2: 0}


def test_one_detection_for_two_tracks_starts_a_new_one() -> None:
    """Two tracks at the same place and one detection: both tracks end, the detection gets a new id."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A, shifted(FACE_A, 200)))
    tracker.move({1: (90, 0), 2: (-90, 0)})
    assert tracker.has_overlap
    tracker.confirm(detections(shifted(FACE_A, 100)))
    assert ids(tracker) == [3]


def test_two_detections_for_one_track_start_new_ones() -> None:
    """One track and two equally good detections: the track ends, both detections get new ids."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A))
    tracker.confirm(detections(shifted(FACE_A, -20), shifted(FACE_A, 20)))
    assert ids(tracker) == [2, 3]


def test_an_occluded_face_returns_with_a_new_id() -> None:
    """The face in front keeps its id; the face behind it gets a new id when it is visible again."""
    tracker = Tracker()
    tracker.confirm(detections(FACE_A, shifted(FACE_A, 60)))
    tracker.confirm(detections(FACE_A))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 0, 2: 1}
    tracker.confirm(detections(FACE_A))
    tracker.confirm(detections(FACE_A, shifted(FACE_A, -60)))
    assert ids(tracker) == [1, 3]


@pytest.mark.parametrize("speed", [5, 12, 25, 40])
def test_crossing_faces_never_swap_ids(speed: int) -> None:
    """Of two faces that cross, one hiding the other, no id moves from one to the other.

    As optical flow does, the test gives a hidden face the motion of the face in front of it.
    """
    tracker = Tracker()
    front, behind = (100.0, 100.0, 80.0, 100.0), (600.0, 110.0, 78.0, 96.0)
    tracker.confirm(detections(front, behind))
    owner = {track.id: ("front" if track.box == front else "behind") for track in tracker.tracks}
    for _ in range(600 // speed):
        front, behind = shifted(front, speed), shifted(behind, -speed)
        shifts = {}
        for track in tracker.tracks:
            centre = track.box[0] + track.box[2] / 2
            hidden = abs(centre - (front[0] + speed / 2 + 40)) < 60
            shifts[track.id] = (speed if hidden or owner[track.id] == "front" else -speed, 0.0)
        tracker.move(shifts)
        visible = abs(front[0] - behind[0]) > 50
        tracker.confirm(detections(front, behind) if visible else detections(front))
        for track in tracker.tracks:
            nearest = "front" if abs(track.box[0] - front[0]) < abs(track.box[0] - behind[0]) else "behind"
            if not track.missed and visible:
                assert owner.setdefault(track.id, nearest) == nearest
            elif not track.missed:
                owner.setdefault(track.id, "front")
    assert len(tracker.tracks) == 2
    assert {owner[track.id] for track in tracker.tracks} == {"front", "behind"}


def test_has_overlap() -> None:
    """No track, or tracks side by side, do not overlap."""
    tracker = Tracker()
    assert not tracker.has_overlap
    tracker.confirm(detections(FACE_A, FACE_B))
    assert not tracker.has_overlap
    tracker.move({1: (0, 0), 2: (-230, 0)})
    assert tracker.has_overlap
