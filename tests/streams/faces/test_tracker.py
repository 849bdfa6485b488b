"""Tests of the tracker: who keeps an id, who gets a new one, and that none is ever swapped."""

from __future__ import annotations

import pytest

from streams.faces.crop import Box
from streams.faces.detector import Detection
from streams.faces.tracker import Tracker

ANN: Box = (100, 100, 80, 100)
BOB: Box = (400, 120, 90, 110)


def found(*boxes: Box) -> list[Detection]:
    """Make detections of these boxes."""
    return [Detection(box, 0.9) for box in boxes]


def shifted(box: Box, right: float, down: float = 0.0) -> Box:
    """Move a box."""
    return (box[0] + right, box[1] + down, box[2], box[3])


def ids(tracker: Tracker) -> list[int]:
    """List the ids that are alive."""
    return [track.id for track in tracker.tracks]


def test_faces_keep_their_ids_whatever_the_order_of_detections() -> None:
    """Two faces seen again, the other one first, stay who they were."""
    tracker = Tracker()
    tracker.confirm(found(ANN, BOB))
    tracker.confirm(found(shifted(BOB, 8), shifted(ANN, -6, 4)))
    assert ids(tracker) == [1, 2]
    assert tracker.tracks[0].box[0] < tracker.tracks[1].box[0]


def test_box_is_smoothed_between_motion_and_detection() -> None:
    """A confirmed box lies between where motion led it and where the face was detected."""
    tracker = Tracker(smoothing=0.25)
    tracker.confirm(found(ANN))
    tracker.move({1: (10, 0)})
    assert tracker.tracks[0].box == (110, 100, 80, 100)
    tracker.confirm([Detection((114, 104, 88, 108), 0.7)])
    (track,) = tracker.tracks
    assert track.box == pytest.approx((113, 103, 86, 106))
    assert track.score == 0.7


def test_id_survives_one_missed_detection_and_no_more() -> None:
    """One miss is counted and forgotten when the face is found again; two in a row end the track."""
    tracker = Tracker()
    tracker.confirm(found(ANN))
    tracker.confirm([])
    assert [track.missed for track in tracker.tracks] == [1]
    tracker.confirm(found(ANN))
    assert [track.missed for track in tracker.tracks] == [0]
    tracker.confirm([])
    tracker.confirm([])
    assert tracker.tracks == ()
    tracker.confirm(found(ANN))
    assert ids(tracker) == [2], "an id is never given twice"


def test_a_face_whose_motion_is_unknown_starts_over() -> None:
    """A track without a measured motion ends, even if a face is then found at the very same place."""
    tracker = Tracker()
    tracker.confirm(found(ANN, BOB))
    tracker.move({2: (5, 0)})
    tracker.confirm(found(ANN, shifted(BOB, 5)))
    assert sorted(ids(tracker)) == [2, 3]
    assert next(track for track in tracker.tracks if track.id == 2).box[0] == 405


def test_a_detection_far_away_is_someone_else() -> None:
    """A face that is not where the known one should be gets its own id."""
    tracker = Tracker()
    tracker.confirm(found(ANN))
    tracker.confirm(found(shifted(ANN, 300)))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 1, 2: 0}


def test_a_much_larger_face_at_the_same_place_is_someone_else() -> None:
    """Overlap counts both ways: someone who steps close to the camera in front of Ann is not Ann."""
    tracker = Tracker()
    tracker.confirm(found(ANN))
    tracker.confirm(found((50, 50, 240, 300)))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 1, 2: 0}


def test_one_detection_for_two_tracks_belongs_to_neither() -> None:
    """Where two tracks have come to the same place, the one face seen there starts a new id."""
    tracker = Tracker()
    tracker.confirm(found(ANN, shifted(ANN, 200)))
    tracker.move({1: (90, 0), 2: (-90, 0)})
    assert tracker.crowded
    tracker.confirm(found(shifted(ANN, 100)))
    assert ids(tracker) == [3]


def test_two_detections_for_one_track_belong_to_nobody_known() -> None:
    """A face that seems to split in two leaves two new ids."""
    tracker = Tracker()
    tracker.confirm(found(ANN))
    tracker.confirm(found(shifted(ANN, -20), shifted(ANN, 20)))
    assert ids(tracker) == [2, 3]


def test_a_face_passing_in_front_is_not_taken_for_the_one_behind() -> None:
    """Ann, in front, keeps her id while Bob vanishes behind her; who comes out again is new."""
    tracker = Tracker()
    tracker.confirm(found(ANN, shifted(ANN, 60)))
    tracker.confirm(found(ANN))
    assert {track.id: track.missed for track in tracker.tracks} == {1: 0, 2: 1}
    tracker.confirm(found(ANN))
    tracker.confirm(found(ANN, shifted(ANN, -60)))
    assert ids(tracker) == [1, 3]


@pytest.mark.parametrize("speed", [5, 12, 25, 40])
def test_crossing_faces_never_swap_ids(speed: int) -> None:
    """Two faces cross, the one in front hiding the other: afterwards no id is on the other face.

    Motion is what optical flow gives: of a hidden face, that of the face in front of it.
    """
    tracker = Tracker()
    front, behind = (100.0, 100.0, 80.0, 100.0), (600.0, 110.0, 78.0, 96.0)
    tracker.confirm(found(front, behind))
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
        tracker.confirm(found(front, behind) if visible else found(front))
        for track in tracker.tracks:
            nearest = "front" if abs(track.box[0] - front[0]) < abs(track.box[0] - behind[0]) else "behind"
            if not track.missed and visible:
                assert owner.setdefault(track.id, nearest) == nearest
            elif not track.missed:
                owner.setdefault(track.id, "front")
    assert len(tracker.tracks) == 2
    assert {owner[track.id] for track in tracker.tracks} == {"front", "behind"}


def test_crowded_tells_overlapping_tracks_only() -> None:
    """Side by side is not a crowd, and neither is nobody."""
    tracker = Tracker()
    assert not tracker.crowded
    tracker.confirm(found(ANN, BOB))
    assert not tracker.crowded
    tracker.move({1: (0, 0), 2: (-230, 0)})
    assert tracker.crowded
